"""What a study's runs show: means, paired differences, crossovers and trade-offs, laid out for table and page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart.errors import RunError
from headstart.runs.reader import RunRecord
from headstart.runs.result import split_of
from headstart.study.compare import SHOTS_AXES, Design, Table, choice, short_name, sort_key
from headstart.study.statistics import (
    Aggregate,
    Crossover,
    MeanInterval,
    PairedDifference,
    aggregate_differences,
    crossover,
    holm,
    mean_interval,
    paired_difference,
    smallest_p,
)
from headstart.system.console import duration

ALPHA = 0.05
DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
Setting = tuple[str, ...]

_LOWER_IS_BETTER = ("loss", "error", "mae", "mse", "rmse", "ece", "nll", "brier")


@dataclass(frozen=True)
class Metric:
    """A metric's name, its direction, and whether people read it as a percentage."""

    name: str
    higher_is_better: bool
    percent: bool

    @property
    def label(self) -> str:
        """``test/acc`` as people say it: ``test accuracy``."""
        words = {"acc": "accuracy", "f1": "F1", "auroc": "AUROC", "val": "validation"}
        return " ".join(words.get(part, part) for part in _parts(self.name))

    def text(self, value: float | None, digits: int = 1) -> str:
        """A value with its unit, or a dash."""
        if value is None:
            return DASH
        return (f"{100 * value:.{digits}f} %" if self.percent else f"{value:.4g}").replace("-", MINUS)

    def gap(self, value: float | None) -> str:
        """A difference with its sign, in percentage points where the metric is a percentage."""
        if value is None:
            return DASH
        return f"{100 * value:+.1f}".replace("-", MINUS) if self.percent else f"{value:+.3g}".replace("-", MINUS)

    @property
    def unit(self) -> str:
        """What a difference is counted in."""
        return "points" if self.percent else ""


@dataclass(frozen=True)
class Arm:
    """All seeds of one value of the contrast in one setting, in numbers."""

    value: str
    setting: Setting
    metrics: Mapping[str, MeanInterval]
    costs: Mapping[str, MeanInterval]
    seeds: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """One value of the contrast against the reference in one setting.

    Attributes:
        value: of the contrast.
        setting: in which both ran.
        paired: the statistics of the pairs; None when no seed has both.
        p_adjusted: after Holm's correction over ``family`` comparisons.
        family: how many comparisons the correction counts.
        verdict: ``better``, ``worse``, ``no difference``, ``too few`` or ``unpaired``.
        primary: whether this was declared the one question, which is corrected apart from the others.
    """

    value: str
    setting: Setting
    paired: PairedDifference | None
    p_adjusted: float | None
    family: int
    verdict: str
    primary: bool = False


@dataclass(frozen=True)
class Overtaking:
    """Where a value of the contrast overtakes the reference as the number of training images grows, or the reverse."""

    leader: str
    follower: str
    crossing: Crossover
    shots: tuple[float, ...]
    others: str


@dataclass(frozen=True)
class Analysis:
    """One table of a study, analysed."""

    table: Table
    design: Design
    metric: Metric
    metrics: tuple[Metric, ...]
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    gains: tuple[Difference, ...]
    overtakings: tuple[Overtaking, ...]


def primary_metric(table: Table, wanted: str | None = None) -> Metric:
    """The metric that decides: the test metric of what chose the checkpoint, or the validation one without a test set.

    Raises:
        RunError: ``wanted`` is in none of the runs, or the runs share no metric.
    """
    shared = set.intersection(*(set(run.metrics) for run in table.runs)) if table.runs else set()
    if wanted:
        if wanted not in shared:
            raise RunError(f"metric '{wanted}' is not in every run of {table.title}; they share {sorted(shared)}")
        return _metric(table, wanted)
    monitor = table.identity.selection
    short = monitor.split("/", 1)[-1]
    for name in (f"test/{short}", "test/acc", monitor, "val/acc", *sorted(shared)):
        if name in shared:
            return _metric(table, name)
    raise RunError(f"the runs of {table.title} share no metric; their result.json is incomplete, run them again")


def analyse(
    table: Table,
    design: Design,
    *,
    metric: str | None = None,
    primary: str | None = None,
) -> Analysis:
    """Compute everything the report says in numbers about one table.

    Args:
        table: runs that may be compared.
        design: their layout.
        metric: the deciding metric; chosen by :func:`primary_metric` if None.
        primary: the value of the contrast whose difference from the reference is *the* question, declared before
            looking. Its p-values form a family of their own for Holm's correction, as do those of training from
            random weights; the rest is the third family.
    """
    deciding = primary_metric(table, metric)
    names = sorted({name for run in table.runs for name in run.metrics if name.startswith(("val/", "test/"))})
    arms = tuple(
        _arm(value, setting, design.cells[value, setting])
        for setting in design.settings
        for value in design.values
        if (value, setting) in design.cells
    )
    scratch = from_scratch(table, design)
    question = primary or _declared(table, "study.primary")
    differences = _differences(design, deciding, design.reference, primary=question, baseline=scratch)
    gains = (
        _differences(design, deciding, scratch, by_value=True)
        if scratch and scratch != design.reference
        else differences
    )
    return Analysis(
        table=table,
        design=design,
        metric=deciding,
        metrics=(deciding, *(_metric(table, name) for name in names if name != deciding.name)),
        arms=arms,
        differences=differences,
        gains=gains if scratch else (),
        overtakings=tuple(_overtakings(design, deciding)),
    )


def aggregate(analyses: Sequence[Analysis]) -> dict[tuple[str, str], Aggregate]:
    """Over several data sets: per value of the contrast and setting, interquartile mean and chance of improvement.

    Only tables with the same contrast and reference, and a metric of the same name, can be taken together.
    """
    found: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    if not analyses:
        return {}
    first = analyses[0]
    for analysis in analyses:
        layout = analysis.design
        same = (layout.contrast, layout.reference) == (first.design.contrast, first.design.reference)
        if not same or analysis.metric.name != first.metric.name:
            continue
        for difference in analysis.differences:
            pair = _pairs(layout, analysis.metric, difference.value, layout.reference, difference.setting)
            if pair[0].size:
                key = difference.value, layout.setting_text(difference.setting)
                found.setdefault(key, []).append(pair)
    return {
        key: aggregate_differences([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        for key, pairs in found.items()
        if len(pairs) > 1
    }


def from_scratch(table: Table, design: Design) -> str | None:
    """The value of the contrast that starts from random weights, if there is exactly one."""
    sources: dict[str, set[bool]] = {}
    for run in table.runs:
        source = run.result.weights["source"]
        sources.setdefault(choice(run, design.contrast), set()).add(source in ("none", "random"))
    random = [value for value, found in sources.items() if found == {True}]
    return random[0] if len(random) == 1 and len(sources) > 1 else None


def _parts(metric: str) -> tuple[str, ...]:
    split, name = split_of(metric)
    return (*split.split("/"), name)


def cost_columns(arms: Sequence[Arm]) -> list[str]:
    """The costs that at least one arm recorded, in the order in which they are shown."""
    order = ("total_seconds", "trainable_parameters", "peak_memory_bytes", "stored_bytes")
    return [name for name in order if any(name in arm.costs for arm in arms)]


def _metric(table: Table, name: str) -> Metric:
    # Of a target it is called kind_target, as in rmse_speed (km/h).
    short = split_of(name)[1]
    higher = not any(
        f"_{short}".endswith(f"_{word}") or f"{short}_".startswith(f"{word}_") for word in _LOWER_IS_BETTER
    )
    values = [run.metrics[name] for run in table.runs if name in run.metrics]
    percent = (
        short != "loss"
        and all(0 <= value <= 1 for value in values)
        and short.partition("_")[0] not in ("nll", "mae", "mse", "rmse")
    )
    return Metric(name, higher, percent)


def _arm(value: str, setting: Setting, cell: Mapping[str, RunRecord]) -> Arm:
    runs = list(cell.values())
    metrics = sorted({name for run in runs for name in run.metrics})
    costs = sorted({name for run in runs for name in run.costs})
    return Arm(
        value=value,
        setting=setting,
        metrics={m: mean_interval([run.metrics[m] for run in runs if m in run.metrics]) for m in metrics},
        costs={c: mean_interval([run.costs[c] for run in runs if c in run.costs]) for c in costs},
        seeds=tuple(cell),
    )


def _pairs(
    design: Design, metric: Metric, value: str, reference: str, setting: Setting
) -> tuple[np.ndarray, np.ndarray]:
    first = design.cells.get((value, setting), {})
    second = design.cells.get((reference, setting), {})
    seeds = [
        seed
        for seed in first
        if seed in second and metric.name in first[seed].metrics and metric.name in second[seed].metrics
    ]
    return (
        np.array([first[seed].metrics[metric.name] for seed in seeds]),
        np.array([second[seed].metrics[metric.name] for seed in seeds]),
    )


def _differences(
    design: Design,
    metric: Metric,
    reference: str,
    *,
    primary: str | None = None,
    baseline: str | None = None,
    by_value: bool = False,
) -> tuple[Difference, ...]:
    found = []
    for setting in design.settings:
        for value in design.values:
            if value == reference or (value, setting) not in design.cells:
                continue
            first, second = _pairs(design, metric, value, reference, setting)
            paired = paired_difference(first, second) if first.size else None
            found.append(Difference(value, setting, paired, None, 1, "unpaired", value == primary))
    # Each question has its own family: the declared one, the from-scratch baseline, everything else; and for
    # transfer gain, whether pretraining helps each strategy.
    families: dict[str, list[int]] = {}
    for place, item in enumerate(found):
        if item.paired is not None:
            kind = "primary" if item.primary else "baseline" if item.value == baseline else "other"
            families.setdefault(item.value if by_value else kind, []).append(place)
    for places in families.values():
        adjusted = holm([paired.p for place in places if (paired := found[place].paired)])
        for place, p in zip(places, adjusted, strict=True):
            found[place] = _judged(found[place], p, len(places), metric)
    return tuple(found)


def _judged(item: Difference, p: float, family: int, metric: Metric) -> Difference:
    if item.paired is None:
        return item
    return replace(item, p_adjusted=p, family=family, verdict=_verdict(item.paired, p, family, metric))


def _verdict(paired: PairedDifference, p: float, family: int, metric: Metric) -> str:
    if p < ALPHA:
        return "better" if (paired.mean > 0) == metric.higher_is_better else "worse"
    # Holm multiplies the smallest p by the number of comparisons: with too few seeds nothing could have passed.
    return "too few" if family * smallest_p(paired.n) >= ALPHA else "no difference"


def _overtakings(design: Design, metric: Metric) -> list[Overtaking]:
    if design.shots is None:
        return []
    others = sorted({_without(setting, design.shots) for setting in design.settings})
    found = []
    for rest in others:
        for value in design.values[1:]:
            curves = _curves(design, metric, value, rest)
            if curves is None:
                continue
            shots, mine, reference = curves
            ahead = mine[-1].mean() > reference[-1].mean()
            leader, follower = (value, design.reference) if ahead else (design.reference, value)
            crossing = crossover(shots, mine, reference) if ahead else crossover(shots, reference, mine)
            axes = [axis for place, axis in enumerate(design.axes) if place != design.shots]
            text = ", ".join(f"{short_name(axis)} {part}" for axis, part in zip(axes, rest, strict=True))
            found.append(Overtaking(leader, follower, crossing, tuple(shots), text))
    return found


def _curves(
    design: Design, metric: Metric, value: str, rest: Setting
) -> tuple[list[float], np.ndarray, np.ndarray] | None:
    assert design.shots is not None
    levels, seeds = [], None
    for setting in design.settings:
        # `null` (all images) has no place on a scale of shots.
        if _without(setting, design.shots) != rest or sort_key(setting[design.shots])[0] != 0:
            continue
        first, second = design.cells.get((value, setting), {}), design.cells.get((design.reference, setting), {})
        both = {seed for seed in first if seed in second and metric.name in first[seed].metrics}
        both &= {seed for seed in second if metric.name in second[seed].metrics}
        if both:
            levels.append(setting)
            seeds = both if seeds is None else seeds & both
    if len(levels) < 2 or not seeds:
        return None
    sign = 1.0 if metric.higher_is_better else -1.0
    grids = [
        sign
        * np.array(
            [[design.cells[name, setting][seed].metrics[metric.name] for seed in sorted(seeds)] for setting in levels]
        )
        for name in (value, design.reference)
    ]
    return [float(setting[design.shots]) for setting in levels], grids[0], grids[1]


def _without(setting: Setting, place: int) -> Setting:
    return (*setting[:place], *setting[place + 1 :])


def _declared(table: Table, name: str) -> str | None:
    values = {choice(run, name) for run in table.runs if name in run.choices or name in run.composed}
    declared = values.pop() if len(values) == 1 else "null"
    return None if declared == "null" else declared


def shots_label(design: Design) -> str:
    """What the axis of training images counts."""
    if design.shots is None:
        return ""
    return "training images per class" if design.axes[design.shots] == SHOTS_AXES[0] else "share of the training images"


def cost_text(name: str, value: float) -> str:
    """A cost with its unit, in as few characters as are useful."""
    if name.endswith("seconds"):
        return duration(value)
    unit = "B" if name.endswith("bytes") else ""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}{unit}"
    return f"{value:.0f} {unit}".strip()
