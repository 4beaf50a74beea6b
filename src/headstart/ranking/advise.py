"""Which backbone, which strategy and which recipe for this data, within a given time."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.config import compose, resolve_run
from headstart.data.datamodule import ImageDataModule
from headstart.errors import WeightsError
from headstart.ranking.budget import Clock, seconds_of
from headstart.ranking.candidates import Candidate, default_candidates, named_candidates
from headstart.ranking.curve import LearningCurve, learning_curve
from headstart.ranking.data_words import data_words
from headstart.ranking.features import measure, prepared_data
from headstart.ranking.intervals import Value, of_proportion
from headstart.ranking.journal import FILE, Journal, Tried
from headstart.ranking.rank import HOW, Ranking, Say, rank, safe_name
from headstart.ranking.trials import Trials
from headstart.runs.result import Result, read_result
from headstart.system.console import duration
from headstart.system.digests import digest

BUDGET = "10min"
FINALISTS = 3
TEST_FRACTION = 0.2
# Shares of the budget: for passes of the candidates over the training images, and kept for the end.
_FOR_RANKING = 0.3
_RESERVE = 0.05
_LEAST_RESERVE_S = 5.0
# A look at a share of the images must leave enough to tell networks apart.
_LEAST_FRACTION_IMAGES = 200
_OF_SIZE = ("datamodule.shots", "datamodule.fraction")


@dataclass(frozen=True)
class Advice:
    """A recommendation with its evidence.

    Attributes:
        data: name of the data set.
        data_words: what to know about it.
        ranking: of the networks.
        tried: all trainings, the best on validation first; those that failed last.
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
    data_words: tuple[str, ...]
    ranking: Ranking
    tried: tuple[Tried, ...]
    chosen: Tried
    result: Result
    expected: Value | None
    curve: LearningCurve | None
    skipped: dict[str, float]
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
    journal = Journal.open(folder / FILE, digest([data.summary()["fingerprint"], sorted(overrides)]))
    clock.earlier_s = journal.spent_s
    if journal.spent_s:
        say(f"going on from {folder}, after {duration(journal.spent_s)} of earlier work")
    words = data_words(data)
    for sentence in words:
        say(sentence)
    compared, fraction = _within(clock, there, overrides, data, journal, say)
    share = "all" if fraction is None else f"{100 * fraction:.0f} % of"
    say(f"{clock.face()} scoring {len(compared)} networks on {share} training images")
    part = [] if fraction is None else [f"datamodule.fraction={fraction:.3f}"]
    ranking = rank(
        [*overrides, *part], backbones=[one.name for one in compared], say=lambda text: say(f"{clock.face()}   {text}")
    )
    journal.save(clock.spent_s)
    reserve = max(_LEAST_RESERVE_S, _RESERVE * clock.budget_s)
    trials = Trials(overrides, folder.name, data, clock, journal, reserve, say)
    finalists = [(one.name, one.candidate.overrides) for one in ranking.as_good()[:FINALISTS]]
    names = {one.name for one in ranking.networks}
    try:
        # An earlier call may have tried networks that this one does not compare.
        tried = [one for one in trials.run(finalists) if one.backbone in names]
    finally:
        journal.save(clock.spent_s)  # of an interruption, too
    chosen = best_of(tried, clock)
    say(f"{clock.face()} looking at the test images of the best, and at what more images would bring")
    result = read_result(Path(chosen.path))
    seen = next(one for one in ranking.networks if one.name == chosen.backbone)
    curve = learning_curve(seen.examples)
    advice = Advice(
        data.source_name,
        tuple(words),
        ranking,
        tuple(sorted(tried, key=lambda one: -math.inf if one.score is None else one.score, reverse=True)),
        chosen,
        result,
        expected_score(result, curve),
        curve,
        trials.skipped,
        " ".join(["python train.py", f"name={folder.name}", *map(shlex.quote, chosen.overrides)]),
        clock.budget_s,
        clock.spent_s,
        folder,
    )
    journal.save(clock.spent_s)
    return advice


def best_of(tried: Sequence[Tried], clock: Clock) -> Tried:
    """The best on validation; of equal ones the cheapest.

    Raises:
        WeightsError: nothing could be trained.
    """
    done = [one for one in tried if one.score is not None]
    if not done:
        reasons = [one.error for one in tried if one.error]
        raise WeightsError(
            f"nothing could be trained within budget={clock.budget_s:.0f}s"
            f"{f' ({reasons[0]})' if reasons else ''}; give a larger budget"
        )
    return max(done, key=lambda one: (one.score or 0.0, -one.seconds))


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


def _within(
    clock: Clock,
    candidates: Sequence[Candidate],
    overrides: Sequence[str],
    data: ImageDataModule,
    journal: Journal,
    say: Say,
) -> tuple[list[Candidate], float | None]:
    """The candidates that there is time for, and the share of the training images that they look at; None: all."""
    for candidate in candidates:
        if candidate.name not in journal.speeds:
            say(f"{clock.face()} timing {candidate.name}")
            frozen, trained = (
                resolve_run(compose([*overrides, *how, *candidate.overrides])) for how in (HOW, ("strategy=full",))
            )
            journal.speeds[candidate.name] = measure(frozen, trained, data)
            journal.save(clock.spent_s)
    images, room = data.sizes["train"], _FOR_RANKING * clock.budget_s
    kept = sorted(candidates, key=lambda one: journal.speeds[one.name].forward)
    sized = any(choice.lstrip("+").startswith(_OF_SIZE) for choice in overrides)
    least = 1.0 if sized else min(1.0, _LEAST_FRACTION_IMAGES / images)
    while True:
        needed = images * sum(journal.speeds[one.name].forward for one in kept)
        fraction = min(1.0, room / needed) if needed else 1.0
        if fraction >= least or len(kept) == 1:
            break
        say(f"{clock.face()} no time for {kept.pop().name}")
    order = [one for one in candidates if one in kept]
    return order, None if fraction >= 1.0 or sized else max(fraction, least)
