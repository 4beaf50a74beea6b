"""Which backbone, which strategy and which recipe for this data, within a given time."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.config import compose, resolve_run
from headstart.data.datamodule import ImageDataModule
from headstart.errors import WeightsError
from headstart.inspection.facts import Inspection, inspect_data
from headstart.ranking.budget import Clock, Pace, seconds_of
from headstart.ranking.candidates import Candidate, default_candidates, families_first, named_candidates
from headstart.ranking.curve import LearningCurve, learning_curve
from headstart.ranking.estimates import Estimates, best_of
from headstart.ranking.features import Speed, forward_seconds, prepared_data
from headstart.ranking.journal import FILE, Journal, Tried
from headstart.ranking.rank import HOW, Ranking, Say, rank, safe_name
from headstart.ranking.recipes import RECIPES
from headstart.ranking.show import draw_ranking
from headstart.ranking.trials import Trials
from headstart.runs.result import Result, read_result
from headstart.system.console import duration
from headstart.system.digests import digest
from headstart.transferability.intervals import Value, of_proportion

BUDGET = "10min"
FINALISTS = 3
TEST_FRACTION = 0.2
PLOTS = "advice"
# Share of the budget for passes of the candidates over the training images.
_FOR_RANKING = 0.3
# Images that are opened for each second of the budget, which takes a few hundredths of it.
_OPENED_A_SECOND = 5
# Kept for the end: so many times what it took to draw a plot before, and no less than this.
_PLOTS_AT_THE_END = 3
_LEAST_RESERVE_S = 3.0
# A look at a share of the images must leave enough to tell networks apart.
_LEAST_FRACTION_IMAGES = 200
_OF_SIZE = ("datamodule.shots", "datamodule.fraction")


@dataclass(frozen=True)
class Advice:
    """A recommendation with its evidence.

    Attributes:
        data: name of the data set.
        inspection: what a look at its images found.
        ranking: of the networks.
        tried: all trainings, the best by their estimates, less what seeds leave open, first; those that failed last.
        chosen: the best.
        result: of its run.
        expected: accuracy on new images; None where there is no test split.
        curve: of a linear probe on the chosen network's features; None of too few images.
        skipped: what there was no time for, with the seconds it would have taken.
        command: that trains the recommendation.
        budget_s: that was given.
        spent_s: that was used.
        folder: of the runs and the page.
    """

    data: str
    inspection: Inspection = field(repr=False)
    ranking: Ranking = field(repr=False)
    tried: tuple[Tried, ...] = field(repr=False)
    chosen: Tried
    result: Result = field(repr=False)
    expected: Value | None
    curve: LearningCurve | None = field(repr=False)
    skipped: dict[str, float] = field(repr=False)
    command: str
    budget_s: float
    spent_s: float
    folder: Path


def advise(
    overrides: Sequence[str] = (),
    *,
    budget: str = BUDGET,
    backbones: Sequence[str] | None = None,
    say: Say = lambda text: None,
    began: float | None = None,
) -> Advice:
    """Look at the data, score the networks at hand, train the most promising ones, and recommend one.

    The choice is made on training and validation images. The test split is looked at once, for the recommendation; one
    is carved where there is none. What was done is kept: after a kill, or with a larger budget, the same call goes on.

    Args:
        overrides: choices as for a training, the data above all.
        budget: time to use, such as ``10min``.
        backbones: names; None: all networks whose weights are to be had here.
        say: takes a line about each step.
        began: ``time.monotonic()`` from which the budget counts; None: now.

    Raises:
        HeadstartError: the data cannot be used, or there is no network or no time to train anything.
    """
    clock = Clock(seconds_of(budget), began=began)
    candidates = default_candidates() if backbones is None else named_candidates(backbones)
    there = [candidate for candidate in candidates if not candidate.absent]
    if not there:
        raise WeightsError(f"no network's weights are to be had here ({candidates[0].absent})")
    overrides, data = _with_test(overrides, there[0])
    folder = _folder(overrides, there[0], data)
    journal = Journal.open(folder / FILE, digest([data.summary()["fingerprint"], sorted(overrides), *RECIPES]))
    clock.earlier_s = journal.spent_s
    if journal.spent_s:
        say(f"going on from {folder}, after {duration(journal.spent_s)} of earlier work")
    found = inspect_data(data, most=int(_OPENED_A_SECOND * clock.budget_s))
    for sentence in (found.opening(), *found.facts(), *found.warnings()):
        say(sentence)
    ranking, part = _ranking(clock, there, overrides, data, journal, say)
    curves = {one.name: learning_curve(one.examples) for one in ranking.as_good()[:FINALISTS]}
    probed = {one.name: one.values["logistic"].value for one in ranking.networks}
    reserve = _reserve(clock, ranking, folder)
    estimates = Estimates(probed, ranking.images, data.sizes["val"])
    trials = Trials(overrides, folder.name, data, clock, journal, reserve, say, part, estimates)
    names = {one.name for one in ranking.networks}
    # On images unlike the source's, frozen features say little of fine-tuning: one that is behind may come out ahead.
    arms = [(one.name, one.candidate.overrides) for one in ranking.promising()]
    try:
        # An earlier call may have tried networks that this one does not compare.
        tried = [one for one in trials.run(arms[:FINALISTS], arms[FINALISTS:]) if one.backbone in names]
    finally:
        journal.save(clock.spent_s)  # of an interruption, too
    chosen = _chosen(tried, clock)
    say(f"{clock.face()} looking at the test images of the best, {chosen.arm}")
    result = read_result(Path(chosen.path))
    seen = next(one for one in ranking.networks if one.name == chosen.backbone)
    curve = curves[seen.name] if seen.name in curves else learning_curve(seen.examples)
    journal.save(clock.spent_s)
    return Advice(
        data.source_name,
        found,
        ranking,
        tuple(sorted(tried, key=lambda one: one.order, reverse=True)),
        chosen,
        result,
        expected_score(result, curve),
        curve,
        trials.skipped,
        " ".join(["headstart train", f"name={Path(chosen.path).parent.name}", *map(shlex.quote, chosen.overrides)]),
        clock.budget_s,
        clock.spent_s,
        folder,
    )


def _ranking(
    clock: Clock,
    there: Sequence[Candidate],
    overrides: Sequence[str],
    data: ImageDataModule,
    journal: Journal,
    say: Say,
) -> tuple[Ranking, list[str]]:
    """Those of the networks scored that there is time for, and what chooses the images that they were scored on."""
    there = families_first(there)
    fraction = _fraction(clock, there, overrides, data, journal, say)
    share = "all" if fraction is None else f"{100 * fraction:.0f} % of"
    say(f"{clock.face()} scoring up to {len(there)} networks on {share} training images")
    part = [] if fraction is None else [f"datamodule.fraction={fraction:.3f}"]
    pace = Pace(clock, clock.spent_s + _FOR_RANKING * clock.budget_s)

    def refuse(candidate: Candidate) -> str:
        if pace.allows():
            return ""
        say(f"{clock.face()} no time for {candidate.name}")
        return f"there was no time for it within budget={clock.budget_s:.0f}s"

    ranking = rank(
        [*overrides, *part],
        backbones=[one.name for one in there],
        say=lambda text: say(f"{clock.face()}   {text}"),
        refuse=refuse,
    )
    for one in ranking.networks:
        journal.speeds[one.name] = Speed.of(1 / one.cost.images_per_second)
    journal.save(clock.spent_s)
    return ranking, part


def _reserve(clock: Clock, ranking: Ranking, folder: Path) -> float:
    """Seconds to keep for the page, by how long its plots take on this machine as busy as it is."""
    before = clock.spent_s
    draw_ranking(ranking, folder / PLOTS)
    return max(_LEAST_RESERVE_S, _PLOTS_AT_THE_END * (clock.spent_s - before))


def _chosen(tried: Sequence[Tried], clock: Clock) -> Tried:
    chosen = best_of(tried)
    if chosen is None:
        reasons = [one.error for one in tried if one.error]
        raise WeightsError(
            f"nothing could be trained within budget={clock.budget_s:.0f}s"
            f"{f' ({reasons[0]})' if reasons else ''}; give a larger budget"
        )
    return chosen


def expected_score(result: Result, curve: LearningCurve | None) -> Value | None:
    """Accuracy on new images with a 95 % interval for the draw of test images and of the training images.

    The first is Wilson's interval of the run's test accuracy. The second is how much a linear probe's error varies
    between splits of the training images beyond what its own judging images explain.

    Args:
        result: of the recommended run.
        curve: whose last point holds the probe's errors over splits.
    """
    accuracy, images = result.metrics.get("test/acc"), result.data["sizes"].get("test")
    if accuracy is None or not images:
        return None
    found = of_proportion(float(accuracy), int(images))
    if found.low is None or found.high is None or curve is None:
        return found
    between = 1.96 * curve.spread
    low, high = (math.hypot(found.value - found.low, between), math.hypot(found.high - found.value, between))
    return Value(found.value, max(0.0, found.value - low), min(1.0, found.value + high))


def _with_test(overrides: Sequence[str], first: Candidate) -> tuple[list[str], ImageDataModule]:
    """The choices with a test split carved where the data have none, and the data."""
    chosen = [*overrides]
    data = prepared_data(resolve_run(compose([*chosen, *HOW, *first.overrides])))
    if not data.has_test:
        chosen.append(f"datamodule.test_fraction={TEST_FRACTION}")
        data = prepared_data(resolve_run(compose([*chosen, *HOW, *first.overrides])))
    return chosen, data


def _folder(overrides: Sequence[str], first: Candidate, data: ImageDataModule) -> Path:
    output = resolve_run(compose([*overrides, *HOW, *first.overrides])).output_dir
    return Path(output) / f"advise-{safe_name(data.source_name)}"


def _fraction(
    clock: Clock,
    there: Sequence[Candidate],
    overrides: Sequence[str],
    data: ImageDataModule,
    journal: Journal,
    say: Say,
) -> float | None:
    """Share of the training images that the networks look at if all go as fast as the first; None: all."""
    images = data.sizes["train"]
    if images <= _LEAST_FRACTION_IMAGES or any(choice.lstrip("+").startswith(_OF_SIZE) for choice in overrides):
        return None
    first = there[0]
    if first.name not in journal.speeds:
        say(f"{clock.face()} timing {first.name}")
        frozen = resolve_run(compose([*overrides, *HOW, *first.overrides]))
        journal.speeds[first.name] = Speed.of(forward_seconds(frozen, data))
        journal.save(clock.spent_s)
    needed = images * len(there) * journal.speeds[first.name].forward
    fraction = _FOR_RANKING * clock.budget_s / needed
    return None if fraction >= 1.0 else max(fraction, _LEAST_FRACTION_IMAGES / images)
