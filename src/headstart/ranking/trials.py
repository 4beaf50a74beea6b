"""Training the finalists within the time that is left: equal trials for each, then successive halving.

First every arm, a backbone with a way to train it, gets the same number of short trainings with other values of what is
tuned, as ``study.protocol=tuned`` does; with the value that is best on validation it then goes into rounds of which
each halves the arms and doubles their epochs. What time is left goes to the other backbones in the same way, and then
to the best trainings again, from other seeds.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.config import compose, resolve_run
from headstart.data.datamodule import ImageDataModule
from headstart.errors import HeadstartError
from headstart.execution.train import train
from headstart.ranking.budget import Clock, TimeUp, ends_in
from headstart.ranking.estimates import Estimates
from headstart.ranking.journal import Journal, Tried
from headstart.ranking.recipes import FINE_TUNING, FROZEN, Contender, rounds, survivors
from headstart.study.tuning import TUNING_FILE, Point, Trial, best_trial, tuning_record
from headstart.system.atomic import write_json
from headstart.system.console import duration, only_copied

METRIC = "val/acc"
# Of the time left, all trials but the first of each backbone may take this share, so that there are further rounds.
_FOR_TRIALS = 0.5
# The best trainings that are repeated at the end, and from how many other seeds at most.
_REPEATED, _SEEDS = 3, 7
# A training is started when its estimate times this fits.
_CAUTION = 1.1
# Seconds around a training: building, checking, writing.
_AROUND_S = 4.0


@dataclass
class Trials:
    """The trainings of one advice.

    Attributes:
        overrides: of the data and whatever else was chosen.
        study: the name that the runs share.
        data: prepared.
        clock: of the budget.
        journal: of what was done.
        reserve_s: kept for what follows.
        say: takes a line about each step.
        part: chooses the training images that were scored, where there was no time for all.
        estimates: compares the trainings.
        skipped: arms that did not fit, with the seconds that they would have needed.
    """

    overrides: Sequence[str]
    study: str
    data: ImageDataModule
    clock: Clock
    journal: Journal
    reserve_s: float
    say: Callable[[str], None]
    part: Sequence[str] = ()
    estimates: Estimates = field(default_factory=Estimates)
    skipped: dict[str, float] = field(default_factory=dict)
    _told: list[tuple[str, str, list[Trial]]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._rounds = rounds(self.data.sizes["train"], self.data.batch_size)

    def run(
        self, finalists: Sequence[tuple[str, tuple[str, ...]]], others: Sequence[tuple[str, tuple[str, ...]]] = ()
    ) -> list[Tried]:
        """Train until the time is up, or everything has had its trials, its epochs and its seeds.

        Args:
            finalists: names of backbones and what chooses them, the most promising first.
            others: likewise; they are tried with what time the finalists leave.
        """
        frozen = [Contender(*backbone, FROZEN) for backbone in (*finalists, *others)]
        # Without the first there would be nothing to recommend: where there is no time for all images, of a part.
        self._try(frozen[0], 0, must=True, part=() if self._fits(frozen[0], 0) else self.part)
        first = [Contender(*backbone, FINE_TUNING[0]) for backbone in finalists]
        for arm in frozen[1 : len(finalists)]:
            # Cross-validation told of frozen features already; what fine-tuning does must be tried.
            if _CAUTION * self.seconds(arm, 0) + self._needed(first, 1) <= self._left_s:
                self._try(arm, 0)
        self._halved(finalists)
        for arm in first:
            # A network that could not be fine-tuned as long as the others: as long as there is time.
            if not self._done(at := arm.at(self._points(arm)[0]), self._rounds[0]):
                self._as_long_as_fits(at, range(self._rounds[0], 1, -1))
        for arm in frozen:
            self._try(arm, 0)
        self._halved(others)
        arms = [Contender(*backbone, recipe) for recipe in FINE_TUNING for backbone in (*finalists, *others)]
        self._begin_more(arms)
        self._repeat({arm.at(point).name: arm.at(point) for arm in arms for point in self._points(arm)})
        return self._tried

    def _halved(self, backbones: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        """Trials of every way to fine-tune them, then rounds of ever fewer and longer trainings."""
        arms = [Contender(*backbone, recipe) for recipe in FINE_TUNING for backbone in backbones]
        scored = self._tuned(arms)
        for epochs in self._rounds[1:] if scored else ():
            kept = survivors(scored)
            found = [(arm, self._try(arm, epochs)) for arm in kept]
            self.estimates.update(self._tried)
            scored = [(arm, one.estimate) for arm, one in found if one is not None and one.estimate is not None]
            if not scored:
                self._as_long_as_fits(kept[0], range(epochs - 1, epochs // 2, -1))
                break

    def _repeat(self, arms: Mapping[str, Contender]) -> None:
        """The best fine-tunings from other seeds, always the one with the fewest.

        A lucky one falls behind, and the next comes up, so that in the end the best by their means have been repeated.
        """
        while True:
            self.estimates.update(self._tried)
            tuned = [one for one in self._tried if one.epochs and one.arm in arms and not one.unstable]
            scored = [one for one in tuned if one.estimate is not None]
            best = sorted(scored, key=lambda one: -(one.estimate or 0.0))[:_REPEATED]
            few = sorted((one for one in best if len(one.again) < _SEEDS), key=lambda one: len(one.again))
            waiting = [one for one in few if _CAUTION * one.seconds <= self._left_s]
            if not waiting:
                self.skipped |= {_once_more(one): one.seconds for one in few[:1]}
                return
            if not self._again(arms[waiting[0].arm], waiting[0]):
                return

    def _again(self, arm: Contender, one: Tried) -> bool:
        """A training from one more seed; False where the time ended it."""
        later = 1 + len(one.again)
        found = self._timed(_once_more(one), one.seconds, lambda: self._train(arm, one.epochs, (), later))
        if found is None:
            self.skipped[_once_more(one)] = one.seconds
            return False
        if found.score is None:
            one.unstable = True
        else:
            one.again.append(found.score)
        self.journal.save(self.clock.spent_s)
        return True

    @property
    def _tried(self) -> list[Tried]:
        return list(self.journal.tried.values())

    def seconds(self, arm: Contender, epochs: int) -> float:
        """Estimated, of a training; corrected by how long the earlier ones took."""
        speed, sizes, share = self.journal.speeds[arm.backbone], self.data.sizes, arm.recipe.trains
        judged = sizes["val"] * speed.forward
        step = speed.forward + share * (speed.step - speed.forward)
        looks = sum(sizes.values()) * speed.forward
        return (_AROUND_S + looks + epochs * (sizes["train"] * step + judged)) * self._correction(arm)

    def _correction(self, arm: Contender) -> float:
        """How much longer than estimated trainings took, those alike before others, the same backbone's first."""
        done = [one for one in self.journal.tried.values() if one.estimate_s > 0]
        alike = [one for one in done if bool(one.epochs) == bool(arm.recipe.trains)]
        own = [one for one in alike if one.backbone == arm.backbone] or alike
        if own:
            return max(0.5, min(4.0, own[-1].seconds / own[-1].estimate_s))
        # Of another kind: it tells how busy the machine is, and no more.
        return max(1.0, min(2.0, done[-1].seconds / done[-1].estimate_s)) if done else 1.0

    @property
    def _left_s(self) -> float:
        return self.clock.left_s - self.reserve_s

    def _fits(self, arm: Contender, epochs: int) -> bool:
        return _CAUTION * self.seconds(arm, epochs) <= self._left_s

    def _points(self, arm: Contender) -> tuple[Point, ...]:
        return arm.points({choice.lstrip("+~").partition("=")[0] for choice in self.overrides})

    def _tuned(self, arms: Sequence[Contender]) -> list[tuple[Contender, float]]:
        """As many arms as there is time for, each with the best value of equally many trials, and its estimate."""
        kept, number = self._equal(arms)
        trials: dict[Contender, list[Trial]] = {arm: [] for arm in kept}
        for place in range(number):
            for arm in kept:
                for point in self._points(arm)[place : place + 1]:
                    found = self._try(arm.at(point), self._rounds[0])
                    if found is not None:
                        scores = () if found.score is None else (found.score,)
                        runs = (Path(found.path).name,) if found.path else ()
                        trials[arm].append(Trial(point, scores, not scores, runs, found.seconds))
        # Where the time ended before all had theirs, the first ones of each count; never fewer than were given before.
        complete = {arm: made for arm, made in trials.items() if len(made) >= max(1, self.journal.trials)}
        common = min(map(len, complete.values()), default=0)
        equal = {arm: made[:common] for arm, made in complete.items()}
        if equal:
            self.journal.trials = common
            self._told += [(arm.label, arm.recipe.strategy, made) for arm, made in equal.items()]
            write_json(self.journal.path.with_name(TUNING_FILE), tuning_record(self._told, METRIC, self._trials_study))
        self.estimates.update(self._tried)
        best = [arm.at(trial.point) for arm, made in equal.items() if (trial := best_trial(made, METRIC)) is not None]
        done = [(arm, self.journal.tried[_key(arm, self._rounds[0])].estimate) for arm in best]
        return [(arm, estimate) for arm, estimate in done if estimate is not None]

    def _equal(self, arms: Sequence[Contender]) -> tuple[list[Contender], int]:
        """In their order, the arms that there is time for, and how many trials each of them can have.

        Every backbone is fine-tuned once before any gets more. All get the same number of trials, and no fewer than
        those that were given some before.
        """
        number, room = max(1, self.journal.trials), _FOR_TRIALS * self._left_s
        kept: list[Contender] = []
        planned = 0.0
        for arm in arms:
            once = not self._told and arm.recipe == FINE_TUNING[0]
            needed = self._needed([arm], number)
            if not needed or planned + needed <= (self._left_s if once else room):
                kept.append(arm)
                planned += needed
            else:
                self.skipped[arm.label] = needed
        if self._told:
            return kept, number
        most = max((len(self._points(arm)) for arm in kept), default=1)
        while number < most and self._needed(kept, number + 1) <= room:
            number += 1
        return kept, number

    def _needed(self, arms: Sequence[Contender], trials: int) -> float:
        """Seconds for so many trials of each; those of earlier processes take none."""
        planned = [arm.at(point) for arm in arms for point in self._points(arm)[:trials]]
        first = self._rounds[0]
        return sum(_CAUTION * self.seconds(arm, first) for arm in planned if not self._done(arm, first))

    def _as_long_as_fits(self, arm: Contender, lengths: Sequence[int]) -> None:
        """What is left of the time goes to one training with fewer epochs than the round would have."""
        for epochs in lengths:
            if self._fits(arm, epochs):
                self._try(arm, epochs)
                return

    def _begin_more(self, arms: Sequence[Contender]) -> None:
        """Further trials, as many as still fit; those of the comparison are not chosen by them."""
        first = self._rounds[0]
        for place in range(max((len(self._points(arm)) for arm in arms), default=0)):
            for arm in arms:
                for point in self._points(arm)[place : place + 1]:
                    if self._fits(arm.at(point), first):
                        self._try(arm.at(point), first)
        for arm in arms:
            self.skipped.pop(arm.label, None)
            if missing := [at for point in self._points(arm) if not self._done(at := arm.at(point), first)]:
                self.skipped[arm.label] = min(self.seconds(at, first) for at in missing)
                self._as_long_as_fits(missing[0], range(first - 1, 1, -1))

    def _done(self, arm: Contender, epochs: int) -> bool:
        return _key(arm, epochs) in self.journal.tried

    def _try(self, arm: Contender, epochs: int, *, must: bool = False, part: Sequence[str] = ()) -> Tried | None:
        """A training, or its earlier outcome; None where there is no time for it."""
        key = _key(arm, epochs, part)
        if key not in self.journal.tried:
            estimate, said = self.seconds(arm, epochs), f"{arm.name}{f' for {epochs} epochs' if epochs else ''}"
            fits = must or self._fits(arm, epochs)
            found = self._timed(said, estimate, lambda: self._train(arm, epochs, part), must=must) if fits else None
            if found is None:
                self.skipped[said] = estimate
                return None
            self.journal.tried[key] = found
            self.skipped.pop(said, None)
            self.journal.save(self.clock.spent_s)
        return self.journal.tried[key]

    def _timed(self, said: str, estimate: float, train: Callable[[], Tried], *, must: bool = False) -> Tried | None:
        """A training told of before and after; None where it was stopped for want of time."""
        self.say(f"{self.clock.face()} training {said}, about {duration(estimate)}")
        started = self.clock.spent_s
        try:
            # A machine that others use too may take several times as long.
            with contextlib.nullcontext() if must else ends_in(self._left_s):
                found = train()
        except TimeUp:
            self.say(f"{self.clock.face()}   stopped: it takes longer than there is time for")
            return None
        # One that went on from where an earlier call was stopped took longer than that.
        found.seconds, found.estimate_s = max(found.seconds, self.clock.spent_s - started), estimate
        outcome = f"failed: {found.error}" if found.score is None else f"{100 * found.score:.1f} % on validation"
        self.say(f"{self.clock.face()}   {outcome} in {duration(found.seconds)}")
        return found

    def _train(self, arm: Contender, epochs: int, part: Sequence[str], later: int = 0) -> Tried:
        """An ordinary run through the front door, from the seed that was chosen or so many after it."""
        overrides = [*self.overrides, *arm.overrides(epochs)]
        found = Tried(arm.name, arm.backbone, arm.recipe.name, epochs, overrides, None, part=bool(part))
        tuned = [f"study.tuned=[{','.join(key for key, _ in arm.point)}]"] if arm.point else []
        where = [f"name={self._trials_study}"] if epochs == self._rounds[0] else [f"name={self.study}", *tuned]
        quiet = ("callbacks.progress=none", "callbacks.plots=false")
        try:
            with only_copied():
                config = compose([*overrides, *part, *where, *quiet])
                if later:
                    config = compose([*overrides, *part, *where, *quiet, f"seed={config.seed + later}"])
                run = train(resolve_run(config))
            found.score, found.path = run.metrics.get(METRIC), str(run.path)
            found.seconds = run.result.cost.total_seconds if epochs else 0.0
        except HeadstartError as error:
            found.error = str(error).partition("\n")[0]
        return found

    @property
    def _trials_study(self) -> str:
        return f"{self.study}-tuning"


def _once_more(one: Tried) -> str:
    return f"{one.arm} for {one.epochs} epochs, from another seed"


def _key(arm: Contender, epochs: int, part: Sequence[str] = ()) -> str:
    return " / ".join([arm.name, str(epochs), *part])
