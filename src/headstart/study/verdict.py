"""The answer in words that someone new to statistics understands."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headstart.errors import RunError
from headstart.runs.reader import RunRecord
from headstart.study.analysis import (
    Analysis,
    Arm,
    Difference,
    Setting,
    analyse,
    from_scratch,
)
from headstart.study.compare import Table, design, separate, sort_key
from headstart.study.crossing import Overtaking, shots_label, without
from headstart.study.decision import Decision, decide
from headstart.study.statistics import FEWEST, Crossover
from headstart.system.names import suggestion

GLOSSARY = {
    "freeze": "the pretrained network stays as it is and only a new last layer learns (feature extraction)",
    "full": "the whole pretrained network goes on learning (full fine-tuning)",
    "scratch": "the same network starts from random weights: what one would get without pretraining",
    "lp_ft": "first the last layer alone, then the whole network (linear probing, then fine-tuning)",
    "gradual": "layers are released one after another, from the top down",
    "partial": "the top layers learn and the lower ones stay as they are",
    "layerwise": "the whole network learns, lower layers more slowly",
    "norm_only": "only the scales and shifts of the normalisation layers learn",
    "bitfit": "only the biases learn",
    "lora": "small added matrices learn while the network stays as it is",
    "l2sp": "the whole network learns, held close to its pretrained weights",
    "delta": "the whole network learns, its features held close to the pretrained ones",
    "bss": "the whole network learns, and features of little use to the target are suppressed",
    "cotuning": "the whole network learns, together with the classifier of its source",
    "distill": "a network learns from the answers of another one that was fine-tuned before",
    "wise_ft": "a mixture of the weights before and after fine-tuning, chosen on validation",
    "share": "one network learns two tasks at once, with a last layer for each",
}
"""Strategies in plain words, for readers who meet them here first."""

FULL_NAMES = {
    "freeze": "feature extraction",
    "full": "full fine-tuning",
    "scratch": "training from random weights",
    "lp_ft": "linear probing then fine-tuning",
    "gradual": "gradual unfreezing",
    "partial": "fine-tuning the top layers",
    "layerwise": "fine-tuning with lower rates below",
    "norm_only": "training the normalisation layers only",
    "bitfit": "training the biases only",
    "lora": "low-rank adaptation",
    "l2sp": "fine-tuning with weights held close to the start",
    "delta": "fine-tuning with features held close to the start",
    "bss": "batch spectral shrinkage",
    "cotuning": "Co-Tuning",
    "distill": "distillation",
    "wise_ft": "weight-space ensembling",
    "share": "parameter sharing",
}
"""Strategies as the literature names them; the headline says both."""


@dataclass(frozen=True)
class Verdict:
    """What a table says in words.

    Attributes:
        headline: one sentence that answers the question.
        decision: what it gives up, costs, how sure it is and what would change it: a label and a sentence each.
        points: the comparisons behind it.
        chosen: the whole decision.
    """

    headline: str
    decision: tuple[tuple[str, str], ...]
    points: tuple[str, ...]
    chosen: Decision


def verdict(analysis: Analysis, limit: int = 7) -> Verdict:
    """Put an analysis into words: the decision, then the comparisons behind it."""
    ordered = _ordered(analysis)
    vague = [item for item in ordered if item.verdict == "too few"]
    sentences = [difference_sentence(analysis, item) for item in ordered if item not in vague[1:]]
    if len(vague) > 1:
        more = "comparison" if len(vague) == 2 else "comparisons"
        sentences.append(f"For {len(vague) - 1} more {more} there are too few seeds to tell.")
    # A crossing is the answer only if the curves are really apart behind it.
    settled = [item for item in analysis.overtakings if _settled(analysis, item)]
    crossings = [crossover_sentence(analysis, item) for item in settled]
    averages = [
        f"On average {crossover_sentence(analysis, item)}" for item in analysis.overtakings if item not in settled
    ]
    chosen = decide(analysis, main_setting(analysis))
    headline = " ".join([*crossings[:1], chosen.headline])
    said = max(limit - len(averages), 1)
    points = sentences[:said] + crossings[1:] + averages
    if len(sentences) > said:
        points.insert(said, f"The table of differences has all {len(analysis.differences)} comparisons.")
    if analysis.design.contrast == "strategy":
        headline = _named(headline)
    points += _cost_sentences(analysis, chosen.take) + _gain_sentences(analysis)
    return Verdict(headline, chosen.points, tuple(points), chosen)


def verdicts(
    runs: Iterable[RunRecord],
    *,
    contrast: str | None = None,
    reference: str | None = None,
    metric: str | None = None,
    primary: str | None = None,
) -> tuple[list[Table], list[tuple[Analysis, Verdict]]]:
    """Sort runs into tables and put each in which something is compared into numbers and words.

    Args:
        runs: of a study.
        contrast: of :func:`headstart.study.compare.design`.
        reference: likewise.
        metric: of :func:`headstart.study.analysis.analyse`.
        primary: likewise.

    Raises:
        RunError: no table has such an axis or value.
    """
    tables, found = separate(runs), []
    axes = sorted({axis for table in tables for axis in table.axes})
    if contrast is not None and contrast not in axes:
        raise RunError(_unknown("contrast", contrast, axes, "runs differ in"))
    for table in tables:
        layout = design(table, contrast=contrast, reference=reference)
        if layout is not None:
            analysis = analyse(table, layout, metric=metric, primary=primary)
            found.append((analysis, verdict(analysis)))
    values = sorted({value for analysis, _ in found for value in analysis.design.values})
    for name, value in (("reference", reference), ("primary", primary)):
        if found and value is not None and value not in values:
            raise RunError(_unknown(name, value, values, "what is compared is"))
    return tables, found


def _unknown(name: str, value: str, known: Sequence[str], words: str) -> str:
    return f"{name}={value}: {words} {', '.join(known) or 'nothing'}{suggestion(value, known)}"


def difference_sentence(analysis: Analysis, item: Difference) -> str:
    """One paired comparison as a sentence."""
    reference, metric = analysis.design.reference, analysis.metric
    place = analysis.design.setting_text(item.setting)
    where = f" with {place}" if place else ""
    if item.paired is None:
        return f"{item.value} and {reference}{where} have no seed in common, so they cannot be compared."
    paired, gap = item.paired, f"{metric.size(item.paired.mean)} of {metric.label}"
    interval = (
        f"95 % interval {metric.gap(paired.low)} to {metric.gap(paired.high)}, " if paired.low is not None else ""
    )
    scope = analysis.scope(item.setting, item.value, reference)
    numbers = f"({interval}{scope}, {p_text(paired.p)})"
    if item.verdict in ("better", "worse"):
        verb = "beats" if item.verdict == "better" else "falls short of"
        return f"{item.value} {verb} {reference}{where} by {gap} {numbers}."
    seen = f"{metric.gap(paired.mean)} {metric.unit}".strip()
    if item.verdict == "too few":
        return (
            f"Too few seeds to tell {item.value} from {reference}{where}: {why_too_few(item)}. "
            f"So far the mean difference in {metric.label} is {seen}."
        )
    return (
        f"No significant difference between {item.value} and {reference}{where} in {metric.label}: "
        f"{seen} on average {numbers}."
    )


def why_too_few(item: Difference) -> str:
    """Why these runs cannot tell."""
    n = item.paired.n if item.paired else 0
    return f"{n} of each cannot tell a difference from luck; {FEWEST} seeds or splits are the least"


def crossover_sentence(analysis: Analysis, item: Overtaking) -> str:
    """Where one value overtakes the other, as a sentence."""
    crossing, unit = item.crossing, shots_label(analysis.design)
    where = f" ({item.others})" if item.others else ""
    seeds = f"{crossing.n} seed{'' if crossing.n == 1 else 's'}"
    first, last = item.shots[0], item.shots[-1]
    tried = f"the {first:g} to {last:g} {unit} tried"
    if crossing.point is None:
        sure = "" if crossing.high < first else ", though drawing the seeds again does not always agree"
        return f"{item.leader} is ahead of {item.follower} throughout {tried}{where}{sure}."
    return (
        f"{item.leader} overtakes {item.follower} at about {crossing.point:.3g} {unit}{where} "
        f"(95 % interval {crossover_interval(crossing, first, last)}, {seeds})."
    )


def crossover_interval(crossing: Crossover, first: float, last: float) -> str:
    """The interval of a crossing, open where it leaves the range tried."""
    low = f"below {first:g}" if crossing.low < first else f"{crossing.low:.3g}"
    high = (
        f"above {last:g}"
        if crossing.high > last
        else f"below {first:g}"
        if crossing.high < first
        else f"{crossing.high:.3g}"
    )
    return f"{low} to {high}"


def p_text(p: float | None) -> str:
    """A p-value to three digits, never rounded to zero."""
    return "p not computed" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def main_setting(analysis: Analysis) -> Setting:
    """The setting shown where only one fits: with the most values, then the most images, then the best score."""
    shots, metric = analysis.design.shots, analysis.metric
    sign = 1.0 if metric.higher_is_better else -1.0

    def key(setting: Setting) -> tuple[int, tuple[int, float, str], float]:
        arms = arms_in(analysis, setting)
        images = (0, 0.0, "") if shots is None else sort_key(setting[shots])
        scores = (sign * arm.metrics[metric.name].mean for arm in arms if metric.name in arm.metrics)
        return len(arms), images, max(scores, default=-math.inf)

    return max(analysis.design.settings, key=key)


def arms_in(analysis: Analysis, setting: Setting) -> list[Arm]:
    """The arms of one setting, the best first."""
    return [arm for arm in analysis.arms if arm.setting == setting]


def _settled(analysis: Analysis, item: Overtaking) -> bool:
    place, value = analysis.design.shots, item.leader if item.follower == analysis.design.reference else item.follower
    return any(
        difference.verdict in ("better", "worse")
        for difference in analysis.differences
        if place is not None
        and difference.value == value
        and without(difference.setting, place) == item.rest
        and sort_key(difference.setting[place])[:2] == (0, item.shots[-1])
    )


def _named(sentence: str) -> str:
    words = r"(?<![\w-])(" + "|".join(map(re.escape, FULL_NAMES)) + r")(?![\w-])"
    named = re.sub(words, lambda found: f"{FULL_NAMES[found[1]]} ({found[1]})", sentence)
    return named[:1].upper() + named[1:]


def _ordered(analysis: Analysis) -> list[Difference]:
    """The question declared first, then the main setting before others, then by how much an arm is ahead."""
    scratch, main = from_scratch(analysis.table, analysis.design), main_setting(analysis)
    sign = -1.0 if analysis.metric.higher_is_better else 1.0

    def key(item: Difference) -> tuple[bool, bool, bool, float]:
        gain = sign * item.paired.mean if item.paired else math.inf
        return not item.primary, item.value == scratch, item.setting != main, gain

    return sorted(analysis.differences, key=key)


def _cost_sentences(analysis: Analysis, take: str) -> list[str]:
    """What the arm to take and the best of the others cost beside the reference."""
    arms = sorted(arms_in(analysis, main_setting(analysis)), key=lambda arm: arm.value != take)
    scratch = from_scratch(analysis.table, analysis.design)
    reference = next((arm for arm in arms if arm.value == analysis.design.reference), None)
    others: Sequence[Arm] = [arm for arm in arms if arm is not reference and arm.value != scratch]
    if reference is None or not others:
        return []
    sentences = []
    for arm in others[:2]:
        parts = []
        for name, words in (("total_seconds", "as long"), ("stored_bytes", "as many bytes to store per task")):
            if name in arm.costs and name in reference.costs and reference.costs[name].mean > 0:
                ratio = arm.costs[name].mean / reference.costs[name].mean
                parts.append(f"{_times(ratio)} {words}")
        if parts:
            sentences.append(f"Compared with {reference.value}, {arm.value} takes {' and '.join(parts)}.")
    return sentences


def _gain_sentences(analysis: Analysis) -> list[str]:
    scratch, main = from_scratch(analysis.table, analysis.design), main_setting(analysis)
    gains = [item for item in analysis.gains if item.setting == main and item.paired is not None]
    if scratch is None or not gains or scratch == analysis.design.reference:
        return []
    metric = analysis.metric
    sign = 1 if metric.higher_is_better else -1
    best = max(gains, key=lambda item: sign * item.paired.mean if item.paired else 0.0)
    sure = {
        "better": "and that is significant",
        "worse": "which is a loss, and significant",
        "no difference": "which is not a significant difference",
    }
    words = sure.get(best.verdict, "with too few seeds to be sure")
    mean, arm = best.paired.mean if best.paired else 0.0, analysis.arm(scratch, main)
    if arm is not None and arm.unconverged:
        words += f"; but {scratch} was still learning when it ended, so the gain is overstated"
    return [
        f"Transfer gain: starting {best.value} from pretrained instead of random weights changes {metric.label} by "
        f"{metric.gap(mean)} {metric.unit}".rstrip()
        + f", {words}."
    ]


def _times(ratio: float) -> str:
    if 0.95 <= ratio <= 1.05:
        return "about"
    return f"{ratio:,.0f} times" if ratio >= 20 else f"{ratio:.1f} times" if ratio >= 0.1 else f"{ratio:.2g} times"
