"""What a study's runs show: means, paired differences, crossovers and trade-offs, laid out for table and page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart.errors import RunError
from headstart.runs.reader import RunRecord
from headstart.runs.result import higher_is_better, split_of
from headstart.study.compare import Design, Table, choice
from headstart.study.crossing import Overtaking, overtakings
from headstart.study.paired import Paired, candidates, corrected
from headstart.study.samples import Pairing, Scope, chosen_on_score, deterministic, fitted_images, unconverged
from headstart.study.statistics import (
    Aggregate,
    MeanInterval,
    aggregate_differences,
    mean_interval,
)
from headstart.system.console import count_text, duration

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
Setting = tuple[str, ...]


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

    def size(self, value: float) -> str:
        """The size of a difference with its unit."""
        return f"{100 * abs(value):.1f} points" if self.percent else f"{abs(value):.3g}"

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
    """All runs of one value of the contrast in one setting, in numbers.

    Attributes:
        value: of the contrast.
        setting: in which it ran.
        metrics: means and intervals over the runs; that of the deciding metric covers what a comparison covers.
        costs: likewise.
        seeds: names of its repetitions.
        exact: nothing in it is random: other seeds gave the same to the last digit.
        fitted: images that its models were fitted on.
        unconverged: its runs ended while they were still getting better.
        flattered: by how much choosing the epoch on the images that give the score raised it, on average; None where
            another split gives the score, or it is not known.
    """

    value: str
    setting: Setting
    metrics: Mapping[str, MeanInterval]
    costs: Mapping[str, MeanInterval]
    seeds: tuple[str, ...]
    exact: bool = False
    fitted: int = 0
    unconverged: bool = False
    flattered: float | None = None


@dataclass(frozen=True)
class Difference:
    """One value of the contrast against the reference in one setting.

    Attributes:
        value: of the contrast.
        setting: in which both ran.
        paired: the statistics of the pairs, corrected among all comparisons of the table; None when no seed has both.
        family: how many comparisons the correction counts.
        verdict: ``better``, ``worse``, ``no difference``, ``too few`` or ``unpaired``.
        primary: whether this was declared the one question: half of the error rate is kept for it.
    """

    value: str
    setting: Setting
    paired: Paired | None
    family: int
    verdict: str
    primary: bool = False


@dataclass(frozen=True)
class Analysis:
    """One table of a study, analysed.

    Attributes:
        table: its runs.
        design: how they are laid out.
        metric: the one that decides.
        metrics: all of them, the deciding one first.
        arms: every value in every setting, the best of each setting first.
        differences: from the reference.
        gains: from training with random weights; empty where no value does.
        overtakings: along the number of images.
        best: per setting, the values that cannot be told from the best one.
        pairing: how runs are compared.
    """

    table: Table
    design: Design
    metric: Metric
    metrics: tuple[Metric, ...]
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    gains: tuple[Difference, ...]
    overtakings: tuple[Overtaking, ...]
    best: Mapping[Setting, tuple[str, ...]]
    pairing: Pairing

    def arm(self, value: str, setting: Setting) -> Arm | None:
        """The arm of a value in a setting."""
        return next((arm for arm in self.arms if (arm.value, arm.setting) == (value, setting)), None)

    def scope(self, setting: Setting, *values: str) -> Scope:
        """What the runs of a setting cover; of some values of the contrast, those that all of these have."""
        found = {value: cell for (value, where), cell in self.design.cells.items() if where == setting}
        cells = [found[value] for value in values if value in found] or list(found.values())
        shared = set.intersection(*map(set, cells)) if values else set()
        return self.pairing.scope([cell[key] for cell in cells for key in cell if key in shared or not shared])

    def compare(self, value: str, other: str, setting: Setting) -> Paired | None:
        """One value minus another, corrected as the comparisons of the table are."""
        return _compared(self.design, self.pairing, self.differences, setting, value, other)


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
            looking. Half of the error rate is kept for it, the rest is shared by the other comparisons.
    """
    deciding = primary_metric(table, metric)
    names = sorted({name for run in table.runs for name in run.metrics if name.startswith(("val/", "test/"))})
    pairing = Pairing(deciding.name)
    sign = -1.0 if deciding.higher_is_better else 1.0
    found = [
        _arm(value, setting, design.cells[value, setting], pairing)
        for setting in design.settings
        for value in design.values
        if (value, setting) in design.cells
    ]
    order = design.settings.index
    arms = tuple(sorted(found, key=lambda arm: (order(arm.setting), sign * arm.metrics[deciding.name].mean)))
    scratch = from_scratch(table, design)
    question = primary or _declared(table, "study.primary")
    differences = _differences(design, deciding, pairing, design.reference, primary=question)
    gains = differences if scratch == design.reference else ()
    if scratch and not gains:
        gains = _differences(design, deciding, pairing, scratch)
    return Analysis(
        table=table,
        design=design,
        metric=deciding,
        metrics=(deciding, *(_metric(table, name) for name in names if name != deciding.name)),
        arms=arms,
        differences=differences,
        gains=gains,
        overtakings=tuple(overtakings(design, deciding.name, higher=deciding.higher_is_better)),
        best={setting: _best(design, deciding, pairing, differences, setting) for setting in design.settings},
        pairing=pairing,
    )


def aggregate(analyses: Sequence[Analysis]) -> dict[tuple[str, str], Aggregate]:
    """Over several data sets: per value of the contrast and setting, interquartile mean and chance of improvement.

    Only tables with the same contrast and reference, and a metric of the same name, can be taken together.
    """
    found: dict[tuple[str, str], dict[str, tuple[np.ndarray, np.ndarray]]] = {}
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
                # What the rule of comparing sets apart, such as another version of the data, is no further data set.
                found.setdefault(key, {}).setdefault(analysis.table.identity.data, pair)
    higher = first.metric.higher_is_better
    return {
        key: aggregate_differences([a for a, _ in pairs.values()], [b for _, b in pairs.values()], higher=higher)
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
    values = [run.metrics[name] for run in table.runs if name in run.metrics]
    return Metric(name, higher_is_better(name), percent=_is_share(name, values))


def _is_share(name: str, values: Sequence[float]) -> bool:
    kind = split_of(name)[1].partition("_")[0]
    return kind not in ("loss", "nll", "mae", "mse", "rmse", "nrmse") and all(0 <= value <= 1 for value in values)


def _bounded(mean: MeanInterval, name: str, values: Sequence[float]) -> MeanInterval:
    """The interval of a share, cut where its values end: a symmetric one near 100 % reaches beyond."""
    if mean.low is None or mean.high is None or not _is_share(name, values):
        return mean
    lowest = -1.0 if split_of(name)[1].partition("_")[0] in ("kappa", "r2") else 0.0
    return replace(mean, low=max(lowest, mean.low), high=min(1.0, mean.high))


def _arm(value: str, setting: Setting, cell: Mapping[str, RunRecord], pairing: Pairing) -> Arm:
    runs = list(cell.values())
    names = sorted({name for run in runs for name in run.metrics})
    values = {name: [run.metrics[name] for run in runs if name in run.metrics] for name in names}
    metrics = {name: mean_interval(values[name]) for name in names}
    if own := pairing.compare(cell, None):
        metrics[pairing.metric] = MeanInterval(own.mean, own.low, own.high, own.n)
    metrics = {name: _bounded(mean, name, values[name]) for name, mean in metrics.items()}
    costs = sorted({name for run in runs for name in run.costs})
    return Arm(
        value=value,
        setting=setting,
        metrics=metrics,
        costs={c: mean_interval([run.costs[c] for run in runs if c in run.costs]) for c in costs},
        seeds=tuple(cell),
        exact=deterministic(runs),
        fitted=fitted_images(runs),
        unconverged=unconverged(runs),
        flattered=chosen_on_score(runs, pairing.metric) if pairing.split == "val" else None,
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
    design: Design, metric: Metric, pairing: Pairing, reference: str, *, primary: str | None = None
) -> tuple[Difference, ...]:
    """Every value against the reference in every setting: one family, as its table is read as one."""
    found = [
        (value, setting, pairing.compare(design.cells[value, setting], design.cells.get((reference, setting), {})))
        for setting in design.settings
        for value in design.values
        if value != reference and (value, setting) in design.cells
    ]
    known = [(paired, value == primary) for value, _, paired in found if paired is not None]
    adjusted = iter(corrected([paired for paired, _ in known], [declared for _, declared in known]))
    judged = [(value, setting, paired and next(adjusted)) for value, setting, paired in found]
    return tuple(
        Difference(value, setting, paired, len(known), _verdict(paired, metric), value == primary)
        for value, setting, paired in judged
    )


def _verdict(paired: Paired | None, metric: Metric) -> str:
    if paired is None:
        return "unpaired"
    if paired.significant:
        return "better" if (paired.mean > 0) == metric.higher_is_better else "worse"
    return "too few" if paired.few or paired.p is None else "no difference"


def _best(
    design: Design, metric: Metric, pairing: Pairing, differences: Sequence[Difference], setting: Setting
) -> tuple[str, ...]:
    values = [value for value in design.values if (value, setting) in design.cells]

    def minus(value: str, other: str) -> Paired | None:
        paired = _compared(design, pairing, differences, setting, value, other)
        return paired if paired is None or metric.higher_is_better else paired.reversed()

    pairs = [[None if a == b else minus(a, b) for b in values] for a in values]
    return tuple(values[place] for place in candidates(pairs))


def _compared(
    design: Design, pairing: Pairing, differences: Sequence[Difference], setting: Setting, value: str, other: str
) -> Paired | None:
    """One value minus another: a difference of the table as it stands there, any other for as many as it has."""
    for item in differences:
        if item.setting == setting and {item.value, design.reference} == {value, other}:
            return item.paired.reversed() if item.paired and item.value == other else item.paired
    cells = design.cells
    paired = pairing.compare(cells.get((value, setting), {}), cells.get((other, setting), {}))
    return paired and paired.among(max(len(differences), 1))


def _declared(table: Table, name: str) -> str | None:
    values = {choice(run, name) for run in table.runs if name in run.choices or name in run.composed}
    declared = values.pop() if len(values) == 1 else "null"
    return None if declared == "null" else declared


def cost_text(name: str, value: float) -> str:
    """A cost with its unit."""
    return duration(value) if name.endswith("seconds") else count_text(value, "B" if name.endswith("bytes") else "")
