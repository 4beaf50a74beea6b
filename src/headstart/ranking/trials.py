"""Training the finalists within the time that is left: successive halving over backbones, strategies and rates."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from headstart.config import compose, resolve_run
from headstart.data.datamodule import ImageDataModule
from headstart.errors import HeadstartError
from headstart.execution.train import train
from headstart.ranking.budget import Clock
from headstart.ranking.journal import Journal, Tried
from headstart.ranking.recipes import FINE_TUNING, FROZEN, RUNGS, Arm, survivors
from headstart.system.console import duration, only_copied

# Of the time left, the first round may take this share, so that there are others.
_FIRST_ROUND = 0.4
# A training is started when its estimate times this fits.
_CAUTION = 1.15
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
        skipped: arms that did not fit, with the seconds that they would have needed.
    """

    overrides: Sequence[str]
    study: str
    data: ImageDataModule
    clock: Clock
    journal: Journal
    reserve_s: float
    say: Callable[[str], None]
    skipped: dict[str, float] = field(default_factory=dict)

    def run(self, finalists: Sequence[tuple[str, tuple[str, ...]]]) -> list[Tried]:
        """Train until the time is up or one recipe is left and has had its epochs.

        Args:
            finalists: names of backbones and what chooses them, the most promising first.
        """
        for place, (name, choice) in enumerate(finalists):
            self._try(Arm(name, choice, FROZEN), 0, must=place == 0)  # or there would be nothing to recommend
        arms = list(self._affordable([Arm(*finalist, recipe) for recipe in FINE_TUNING for finalist in finalists]))
        for epochs in RUNGS:
            scored = [
                (arm, found.score) for arm in arms if (found := self._try(arm, epochs)) and found.score is not None
            ]
            if not scored:
                break
            arms = survivors([(arm, score) for arm, score in scored if score is not None])
        return list(self.journal.tried.values())

    def seconds(self, arm: Arm, epochs: int) -> float:
        """Estimated, of a training; corrected by how long the earlier ones took."""
        speed, sizes, share = self.journal.speeds[arm.backbone], self.data.sizes, arm.recipe.trains
        judged = sizes["val"] * speed.forward
        step = speed.forward + share * (speed.step - speed.forward)
        looks = sum(sizes.values()) * speed.forward
        return (_AROUND_S + looks + epochs * (sizes["train"] * step + judged)) * self._correction(arm)

    def _correction(self, arm: Arm) -> float:
        """How much longer than estimated trainings took, the same backbone's before others'."""
        done = [
            one
            for one in self.journal.tried.values()
            if one.estimate_s > 0 and bool(one.epochs) == bool(arm.recipe.trains)
        ]
        own = [one for one in done if one.backbone == arm.backbone] or done
        return max(0.5, min(4.0, own[-1].seconds / own[-1].estimate_s)) if own else 1.0

    def _affordable(self, arms: Sequence[Arm]) -> Iterator[Arm]:
        """In their order, as many as the first round has time for; those of earlier processes in any case."""
        left = self.clock.left_s - self.reserve_s
        room, some = _FIRST_ROUND * left, False
        for arm in arms:
            needed = 0.0 if _key(arm, RUNGS[0]) in self.journal.tried else _CAUTION * self.seconds(arm, RUNGS[0])
            if needed <= room or (not some and needed <= left):
                room, some = room - needed, True
                yield arm
            else:
                self.skipped[arm.name] = needed

    def _try(self, arm: Arm, epochs: int, *, must: bool = False) -> Tried | None:
        """A training, or its earlier outcome; None where there is no time for it."""
        key = _key(arm, epochs)
        if key in self.journal.tried:
            return self.journal.tried[key]
        estimate = self.seconds(arm, epochs)
        if not must and _CAUTION * estimate > self.clock.left_s - self.reserve_s:
            self.skipped[f"{arm.name}, {epochs} epochs" if epochs else arm.name] = estimate
            return None
        length = f" for {epochs} epochs" if epochs else ""
        self.say(f"{self.clock.face()} training {arm.name}{length}, about {duration(estimate)}")
        started = self.clock.spent_s
        found = self._train(arm, epochs)
        found.seconds, found.estimate_s = self.clock.spent_s - started, estimate
        self.journal.tried[key] = found
        self.journal.save(self.clock.spent_s)
        outcome = f"failed: {found.error}" if found.score is None else f"{100 * found.score:.1f} % on validation"
        self.say(f"{self.clock.face()}   {outcome} in {duration(found.seconds)}")
        return found

    def _train(self, arm: Arm, epochs: int) -> Tried:
        """An ordinary run through the front door."""
        overrides = [*self.overrides, *arm.overrides(epochs)]
        found = Tried(arm.name, arm.backbone, arm.recipe.name, epochs, overrides, None)
        try:
            quiet = (f"name={self.study}", "callbacks.progress=none", "callbacks.plots=false")
            with only_copied():
                run = train(resolve_run(compose([*overrides, *quiet])))
            found.score, found.path = run.metrics.get("val/acc"), str(run.path)
        except HeadstartError as error:
            found.error = str(error).partition("\n")[0]
        return found


def _key(arm: Arm, epochs: int) -> str:
    return f"{arm.name} / {epochs}"
