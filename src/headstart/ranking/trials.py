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
from headstart.ranking.journal import Journal, Tried
from headstart.ranking.recipes import FINE_TUNING, FROZEN, Arm, rounds, survivors
from headstart.study.tuning import TUNING_FILE, Point, Trial, best_trial, tuning_record
from headstart.system.atomic import write_json
from headstart.system.console import duration, only_copied

METRIC = "val/acc"
# Of the time left, the trials may take this share, so that there are further rounds.
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
        probed: accuracy of frozen features in cross-validation on the training images, by backbone.
        probed_images: how many those are.
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
    probed: Mapping[str, float] = field(default_factory=dict)
    probed_images: int = 0
    skipped: dict[str, float] = field(default_factory=dict)
    _arms: dict[str, Arm] = field(default_factory=dict, init=False)
    _told: list[tuple[str, str, list[Trial]]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._rounds = rounds(self.data.sizes["train"], self.data.batch_size)

    def run(
        self, finalists: Sequence[tuple[str, tuple[str, ...]]], others: Sequence[tuple[str, tuple[str, ...]]] = ()
    ) -> list[Tried]:
        """Train until the time is up or one arm is left and has had its epochs.

        Args:
            finalists: names of backbones and what chooses them, the most promising first.
            others: likewise; they are tried with what time the finalists leave.
        """
        frozen = [Arm(*backbone, FROZEN) for backbone in (*finalists, *others)]
        # Without the first there would be nothing to recommend: where there is no time for all images, of a part.
        self._try(frozen[0], 0, must=True, part=() if self._fits(frozen[0], 0) else self.part)
        first = [Arm(*backbone, FINE_TUNING[0]) for backbone in finalists]
        for arm in frozen[1 : len(finalists)]:
            # Cross-validation told of frozen features already; what fine-tuning does must be tried.
            if _CAUTION * self.seconds(arm, 0) + self._needed(first, 1) <= self._left_s:
                self._try(arm, 0)
        self._halved(finalists)
        for arm in frozen:
            self._try(arm, 0)
        self._halved(others)
        self._repeat()
        return self._estimated()

    def _halved(self, backbones: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        """Trials of every way to fine-tune them, then rounds of ever fewer and longer trainings."""
        arms = [Arm(*backbone, recipe) for recipe in FINE_TUNING for backbone in backbones]
        scored = self._tuned(arms)
        for epochs in self._rounds[1:] if scored else ():
            kept = survivors(scored)
            found = [(arm, self._try(arm, epochs)) for arm in kept]
            done = [(arm, one.score) for arm, one in found if one is not None and one.score is not None]
            scored = [(arm, self._estimate(arm.backbone, score)) for arm, score in done]
            if not scored:
                self._as_long_as_fits(kept[:1], epochs)
                break
        self._begin_more(arms)

    def _repeat(self) -> None:
        """The best fine-tunings from other seeds, always the one with the fewest.

        A lucky one falls behind, and the next comes up, so that in the end the best by their means have been repeated.
        """
        while True:
            self._estimated()
            known = [(key, self.journal.tried[key]) for key in self._arms]
            found = [(key, one) for key, one in known if one.epochs and one.estimate is not None]
            best = sorted(found, key=lambda item: -(item[1].estimate or 0.0))[:_REPEATED]
            waiting = [(len(one.again), key) for key, one in best if len(one.again) < _SEEDS and self._lasts(one)]
            if not waiting or not self._again(min(waiting, key=lambda item: item[0])[1]):
                return

    def _again(self, key: str) -> bool:
        """A training from one more seed; whether that went well."""
        arm, one = self._arms[key], self.journal.tried[key]
        said = f"{arm.name} for {one.epochs} epochs, from another seed"
        found = self._timed(said, one.seconds, lambda: self._train(arm, one.epochs, (), 1 + len(one.again)))
        if found is None or found.score is None:
            return False
        one.again.append(found.score)
        self.journal.save(self.clock.spent_s)
        return True

    def _lasts(self, one: Tried) -> bool:
        return _CAUTION * one.seconds <= self._left_s

    def _estimated(self) -> list[Tried]:
        tried = list(self.journal.tried.values())
        for one in tried:
            one.estimate = None if one.mean is None else self._estimate(one.backbone, one.mean)
        return tried

    def luck(self, backbone: str) -> float:
        """What a backbone gains by the choice of the validation images, as far as its frozen features tell.

        They were judged on the training images too, in cross-validation, so how good they are is better known than
        from either, and the trainings of one backbone get the same images right: its frozen features are a control
        variate (Lavenberg and Welch, "A Perspective on the Use of Control Variables", 1981). Of a backbone without
        them it is what it is of the others on average. Within one backbone it changes no order.
        """
        images = self.probed_images + self.data.sizes["val"]
        gains = {
            one.backbone: self.probed_images / images * (one.score - self.probed[one.backbone])
            for one in self.journal.tried.values()
            if one.recipe == FROZEN.name and one.score is not None and one.backbone in self.probed
        }
        return gains[backbone] if backbone in gains else sum(gains.values()) / max(len(gains), 1)

    def _estimate(self, backbone: str, score: float) -> float:
        return score - self.luck(backbone)

    def seconds(self, arm: Arm, epochs: int) -> float:
        """Estimated, of a training; corrected by how long the earlier ones took."""
        speed, sizes, share = self.journal.speeds[arm.backbone], self.data.sizes, arm.recipe.trains
        judged = sizes["val"] * speed.forward
        step = speed.forward + share * (speed.step - speed.forward)
        looks = sum(sizes.values()) * speed.forward
        return (_AROUND_S + looks + epochs * (sizes["train"] * step + judged)) * self._correction(arm)

    def _correction(self, arm: Arm) -> float:
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

    def _fits(self, arm: Arm, epochs: int) -> bool:
        return _CAUTION * self.seconds(arm, epochs) <= self._left_s

    def _points(self, arm: Arm) -> tuple[Point, ...]:
        return arm.points({choice.lstrip("+~").partition("=")[0] for choice in self.overrides})

    def _tuned(self, arms: Sequence[Arm]) -> list[tuple[Arm, float]]:
        """As many arms as there is time for, each with the best value of equally many trials, and its score there."""
        kept, number = self._equal(arms)
        trials: dict[Arm, list[Trial]] = {arm: [] for arm in kept}
        for place in range(number):
            for arm in kept:
                for point in self._points(arm)[place : place + 1]:
                    found = self._try(arm.at(point), self._rounds[0])
                    if found is not None:
                        scores = () if found.score is None else (found.score,)
                        runs = (Path(found.path).name,) if found.path else ()
                        trials[arm].append(Trial(point, scores, not scores, runs, found.seconds))
        self._told += [(arm.label, arm.recipe.strategy, trials[arm]) for arm in kept]
        if kept:
            write_json(self.journal.path.with_name(TUNING_FILE), tuning_record(self._told, METRIC, self._trials_study))
        best = [(arm, trial) for arm in kept if (trial := best_trial(trials[arm], METRIC)) is not None]
        return [(arm.at(trial.point), self._estimate(arm.backbone, trial.scores[0])) for arm, trial in best]

    def _equal(self, arms: Sequence[Arm]) -> tuple[list[Arm], int]:
        """In their order, the arms that there is time for, and how many trials each of them can have.

        Every backbone is fine-tuned once before any gets more; all that were given trials get the same number of them.
        """
        number, room = max((len(trials) for *_, trials in self._told), default=1), _FOR_TRIALS * self._left_s
        kept: list[Arm] = []
        for arm in arms:
            once = not self._told and arm.recipe == FINE_TUNING[0]
            if self._needed([*kept, arm], number) <= (self._left_s if once else room):
                kept.append(arm)
            else:
                self.skipped[arm.label] = self._needed([arm], 1)
        if self._told:
            return kept, number
        most = max((len(self._points(arm)) for arm in kept), default=1)
        return kept, max(n for n in range(1, most + 1) if n == 1 or self._needed(kept, n) <= room)

    def _needed(self, arms: Sequence[Arm], trials: int) -> float:
        """Seconds for so many trials of each; those of earlier processes take none."""
        planned = [arm.at(point) for arm in arms for point in self._points(arm)[:trials]]
        first = self._rounds[0]
        return sum(_CAUTION * self.seconds(arm, first) for arm in planned if not self._done(arm, first))

    def _as_long_as_fits(self, arms: Sequence[Arm], below: int) -> None:
        """What is left of the time goes to one training with fewer epochs than the round would have."""
        for arm in arms:
            for epochs in range(below - 1, below // 2, -1):
                if self._fits(arm, epochs):
                    self._try(arm, epochs)
                    return

    def _begin_more(self, arms: Sequence[Arm]) -> None:
        """Trials that a larger budget would begin with, as many as still fit; nothing is chosen by them yet."""
        planned = [self._points(arm) for arm in arms]
        for place in range(max(map(len, planned), default=0)):
            for arm, points in zip(arms, planned, strict=True):
                if place < len(points) and self._fits(arm.at(points[place]), self._rounds[0]):
                    self._try(arm.at(points[place]), self._rounds[0])

    def _done(self, arm: Arm, epochs: int) -> bool:
        return _key(arm, epochs) in self.journal.tried

    def _try(self, arm: Arm, epochs: int, *, must: bool = False, part: Sequence[str] = ()) -> Tried | None:
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
            self.skipped.pop(arm.label, None)
            self.journal.save(self.clock.spent_s)
        self._arms[key] = arm
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
        found.seconds, found.estimate_s = self.clock.spent_s - started, estimate
        outcome = f"failed: {found.error}" if found.score is None else f"{100 * found.score:.1f} % on validation"
        self.say(f"{self.clock.face()}   {outcome} in {duration(found.seconds)}")
        return found

    def _train(self, arm: Arm, epochs: int, part: Sequence[str], later: int = 0) -> Tried:
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
        except HeadstartError as error:
            found.error = str(error).partition("\n")[0]
        return found

    @property
    def _trials_study(self) -> str:
        return f"{self.study}-tuning"


def _key(arm: Arm, epochs: int, part: Sequence[str] = ()) -> str:
    return " / ".join([arm.name, str(epochs), *part])
