"""The decision first: what to take and why, what it gives up and costs, how sure that is, what would change it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from headstart.study.analysis import Analysis, Arm, Setting, cost_text
from headstart.study.compare import short_name
from headstart.study.paired import ALPHA, Paired
from headstart.study.statistics import FEWEST

_CHEAPER = 0.9
"""An arm is cheaper than another when it costs less than this share of it."""

_LISTED = 4
_VERY_SURE = 0.005
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Decision:
    """What a table says to someone who has to choose.

    Attributes:
        take: the value of the contrast to choose; empty where the runs cannot say.
        headline: that, in a sentence.
        points: what it gives up, what it costs, how sure that is, what would change it: a label and a sentence each.
        tied: every value that cannot be told from the best, cheapest first.
    """

    take: str
    headline: str
    points: tuple[tuple[str, str], ...]
    tied: tuple[str, ...]


def decide(analysis: Analysis, setting: Setting) -> Decision:
    """Choose in one setting: the cheapest of those that cannot be told from the best."""
    arms = sorted((arm for arm in analysis.arms if arm.setting == setting), key=lambda arm: -_score(analysis, arm))
    tied = sorted((arm for arm in arms if arm.value in analysis.best[setting]), key=_seconds) or arms[:1]
    # One that others beat on the runs that both have is not the best, whatever its mean over all of its own.
    best, names = max(tied, key=lambda arm: _score(analysis, arm)), tuple(arm.value for arm in tied)
    if len(arms) < 2:
        return _alone(analysis, setting, best)
    least = _seconds(tied[0])
    take = max((arm for arm in tied if _seconds(arm) * _CHEAPER <= least), key=lambda arm: _score(analysis, arm))
    other = best if best is not take else next(arm for arm in arms if arm is not take)
    pair = analysis.compare(other.value, take.value, setting)
    undecided = pair is None or pair.few or pair.p is None
    ahead, behind = (other, take) if pair is not None and _better(analysis, pair.mean) else (take, other)
    best = take if ahead is take and not undecided else best
    points = {
        "What you give up": "" if take is best or undecided else _gives_up(analysis, best, pair),
        "What it costs": "" if undecided else _costs(take, _rivals(arms, take, other)),
        "How sure that is": "" if pair is None else _sure(analysis, setting, pair, ahead=ahead, behind=behind),
        "What would change it": _change(analysis, pair, undecided, settled=len(tied) == 1),
    }
    said = tuple((label, text) for label, text in points.items() if text)
    headline = (
        _undecided(analysis, best, pair)
        if undecided
        else _headline(analysis, take, best, len(tied), highest=best is arms[0])
    )
    early = _unfinished(analysis, arms)
    if early and not undecided:
        headline += (
            f" But {' and '.join(early[:2])}{' and others' if len(early) > 2 else ''} had not finished learning."
        )
    return Decision("" if undecided else take.value, headline, said, names)


def _unfinished(analysis: Analysis, arms: Sequence[Arm]) -> list[str]:
    """Arms that were still learning, each once; what is no strategy comes with its key."""
    values = dict.fromkeys(arm.value for arm in arms if arm.unconverged)
    key = "" if analysis.design.contrast == "strategy" else f"{short_name(analysis.design.contrast)}="
    return [f"{key}{value}" for value in values]


def _alone(analysis: Analysis, setting: Setting, arm: Arm) -> Decision:
    """What can be said of repetitions of one choice: how well it does, how much that varies."""
    metric, scope = analysis.metric, analysis.scope(setting)
    found = [run.metrics[metric.name] for run in analysis.design.cells[arm.value, setting].values()]
    mean = _mean(analysis, arm)
    interval = arm.metrics[metric.name]
    points = {}
    if interval.low is not None and interval.high is not None:
        mean += f", 95 % interval {metric.text(interval.low)} to {metric.text(interval.high)}"
        points["How sure that is"] = _sure(analysis, setting, None, ahead=arm, behind=arm)
    if len(found) > 1:
        kind, span = "folds" if scope.folds else "runs", f"from {metric.text(min(found))} to {metric.text(max(found))}"
        points["How it varies"] = f"The {kind} lie {span}, with a standard deviation of {metric.size(stdev(found))}."
    headline = f"{arm.value} alone: {mean}. There is nothing to compare it with yet."
    return Decision("", headline, tuple(points.items()), (arm.value,))


def cautions(analysis: Analysis) -> list[str]:
    """What weakens every comparison of a table, each with what would cure it."""
    said, metric = [], analysis.metric
    if early := _unfinished(analysis, analysis.arms):
        said.append(
            f"Still learning when they ended: {', '.join(early)}. The last epoch was the best and the training loss "
            "still fell, so more epochs (trainer.max_epochs) may change their place."
        )
    if analysis.pairing.split == "val":
        sizes = [f"{arm.value} {metric.size(arm.flattered)}" for arm in analysis.arms if arm.flattered is not None]
        size = f", by about {'; '.join(sizes[:_LISTED])}" if sizes else ""
        said.append(
            "There is no test split: the same validation images chose each checkpoint and give its score, so the "
            f"scores are too good{size}, and not alike for all. datamodule.test_fraction=0.2 carves a test split."
        )
    if uneven := _uneven(analysis):
        said.append(
            f"Not all have the same runs ({uneven}): a mean is of all runs of an arm, a comparison of those that both "
            "have. The same command again runs what is missing."
        )
    tuned = any(run.composed.get("study.tuned") for run in analysis.table.runs)
    if not tuned and len(analysis.design.values) > 1:
        said.append("No arm was tuned: all ran with the settings given, which suit some better than others.")
    return said


def _uneven(analysis: Analysis) -> str:
    """Arms that lack repetitions which another arm of their setting has; empty where none does."""
    lacking = []
    for arm in analysis.arms:
        cells = [cell for (_, setting), cell in analysis.design.cells.items() if setting == arm.setting]
        whole = len({key for cell in cells for key in cell})
        if len(arm.seeds) < whole:
            lacking.append(f"{arm.value} has {len(arm.seeds)} of {whole}")
    return "; ".join(lacking[:_LISTED])


def _headline(analysis: Analysis, take: Arm, best: Arm, tied: int, *, highest: bool) -> str:
    where = f" with {place}" if (place := analysis.design.setting_text(take.setting)) else ""
    tried = "that was tried in this setting" if place else "that was tried"
    scope, mean = analysis.scope(take.setting), _mean(analysis, take)
    covers = "" if scope.over_splits else " on this split" if scope.splits == 1 else " on these splits"
    if not highest:  # an arm that lacks the runs where others did badly
        covers = " on the runs that both have"
    if tied == 1:
        return f"Take {take.value}{where}: it scores higher than everything else {tried}{covers} ({mean})."
    among = f"the {_count(tied - 1)} that cannot be told from it{covers}"
    if take is best:
        return f"Take {take.value}{where}: it scores highest ({mean}) and costs no more than {among}."
    return (
        f"Take {take.value}{where}: it costs least, and nothing {tried} is demonstrably better than its {mean}"
        f"{covers} ({best.value}: {analysis.metric.text(best.metrics[analysis.metric.name].mean)})."
    )


def _undecided(analysis: Analysis, best: Arm, pair: Paired | None) -> str:
    where = f" with {place}" if (place := analysis.design.setting_text(best.setting)) else ""
    so_far = f"so far {best.value} scores highest ({_mean(analysis, best)})"
    if pair is None:
        return f"No choice yet{where}: {so_far}, but the others ran with other seeds, so nothing can be compared."
    return f"Too few seeds to choose{where}: {so_far}, but {pair.n} of each cannot tell that from luck."


def _gives_up(analysis: Analysis, best: Arm, pair: Paired | None) -> str:
    if pair is None:
        return ""
    metric = analysis.metric
    most = pair.high if metric.higher_is_better else pair.low
    text = f"{best.value} scored {metric.size(pair.mean)} better"
    return f"{text}; that may be luck, or as much as {metric.size(most)}." if most is not None else f"{text}."


def _rivals(arms: Sequence[Arm], take: Arm, other: Arm) -> list[Arm]:
    """Whose costs are told beside those of the choice: the next best's, and the least where another one's are."""
    least = min(arms, key=_seconds)
    cheaper = least not in (take, other) and _seconds(least) < _CHEAPER * _seconds(take)
    return [other, least] if cheaper else [other]


def _costs(take: Arm, others: Sequence[Arm]) -> str:
    parts = []
    for name, words in (("total_seconds", "a run"), ("stored_bytes", "to store for each task")):
        if name in take.costs:
            known = [other for other in others if name in other.costs]
            theirs = "; ".join(f"{other.value}: {cost_text(name, other.costs[name].mean)}" for other in known)
            parts.append(f"{cost_text(name, take.costs[name].mean)} {words}{f' ({theirs})' if theirs else ''}")
    return f"{' and '.join(parts)}." if parts else ""


def _sure(analysis: Analysis, setting: Setting, pair: Paired | None, *, ahead: Arm, behind: Arm) -> str:
    scope, said = analysis.scope(setting, ahead.value, behind.value), []
    if pair is not None and pair.p is not None and not pair.few:
        lead = f"{ahead.value} is {analysis.metric.size(pair.mean)} ahead of {behind.value}"
        luck = "Very sure" if pair.p < _VERY_SURE else "Sure" if pair.p < ALPHA else "Not sure which is better"
        said.append(f"{luck}: {lead}, {'more than luck explains' if pair.p < ALPHA else 'which may be luck'}.")
    said.append(f"It rests on {scope}.")
    if not scope.over_splits:
        said.append(f"It holds for {'this split' if scope.splits == 1 else 'these splits'}; others were not tried.")
        if not scope.images:
            said.append("The luck of which images were tested is not counted in.")
    reach = pair.detectable() if pair is not None and not pair.few else None
    if reach is not None:
        said.append(f"A difference of {analysis.metric.size(reach)} would have been seen four times in five.")
    return " ".join(said)


def _change(analysis: Analysis, pair: Paired | None, undecided: bool, *, settled: bool) -> str:
    if pair is None:
        return "The same seeds for all (seed=1,2,3,4,5)."
    if pair.few:
        seeds = ",".join(str(seed + 1) for seed in range(FEWEST))
        return f"{FEWEST - pair.n} more of each (seed={seeds}): from {FEWEST} on it can be told."
    if settled or undecided or pair.mean == 0.0:
        return "Images unlike these, other settings of the training, or costs that matter more than the score."
    needed, seen = pair.needed(pair.mean), analysis.metric.size(pair.mean)
    if needed is None or pair.exact:
        return f"More images: no number of seeds or splits shows a difference as small as the {seen} seen."
    if needed <= pair.n:
        return f"A few more seeds or splits: with {pair.n}, the {seen} seen are close to what can be told."
    return f"If the {seen} seen are real, about {needed} seeds or splits in place of {pair.n} would show it."


def _score(analysis: Analysis, arm: Arm) -> float:
    mean = arm.metrics[analysis.metric.name].mean
    return mean if analysis.metric.higher_is_better else -mean


def _better(analysis: Analysis, difference: float) -> bool:
    return difference > 0 if analysis.metric.higher_is_better else difference < 0


def _seconds(arm: Arm) -> float:
    return arm.costs["total_seconds"].mean if "total_seconds" in arm.costs else 0.0


def _mean(analysis: Analysis, arm: Arm) -> str:
    return f"{analysis.metric.text(arm.metrics[analysis.metric.name].mean)} {analysis.metric.label}"


def _count(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
