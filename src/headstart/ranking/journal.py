"""What an advice has done so far, so that the same command goes on after a kill."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from headstart.ranking.features import Speed
from headstart.system.atomic import read_note, write_json
from headstart.system.digests import digest

FILE = "advice.json"
_DIGEST = "digest"


@dataclass
class Tried:
    """A finished training.

    Attributes:
        arm: its name.
        backbone: of it.
        recipe: of it.
        epochs: that it was given; 0 where it was solved for.
        overrides: that repeat it.
        score: on validation; None where it failed.
        estimate: the mean over the seeds, corrected by :class:`headstart.ranking.estimates.Estimates`; trainings are
            compared by it.
        seconds: that it took.
        estimate_s: that it was thought to take.
        path: its run directory; empty where it failed.
        error: why it failed.
        part: it saw a part of the training images, for want of time; what repeats it here takes all.
        again: scores of the same training from other seeds.
        unstable: it failed from another seed.
        seed_error: standard error of the mean over the seeds.
    """

    arm: str
    backbone: str
    recipe: str
    epochs: int
    overrides: list[str]
    score: float | None
    seconds: float = 0.0
    estimate_s: float = 0.0
    path: str = ""
    error: str = ""
    part: bool = False
    estimate: float | None = None
    again: list[float] = field(default_factory=list)
    unstable: bool = False
    seed_error: float = 0.0

    @property
    def order(self) -> tuple[bool, bool, float, bool, float]:
        """More is better: trained, from every seed, its estimate less a standard error over seeds, on all, and cheap.

        A training that did well once is so not put before one that did as well on average.
        """
        estimate = (self.estimate or 0.0) - self.seed_error
        return self.estimate is not None, not self.unstable, estimate, not self.part, -self.seconds

    @property
    def mean(self) -> float | None:
        """The score, on average over the seeds."""
        return None if self.score is None else (self.score + sum(self.again)) / (1 + len(self.again))


@dataclass
class Journal:
    """Everything that must not be done again.

    Attributes:
        path: of the file.
        about: the data and choices that it is for; of others nothing is taken over.
        spent_s: of the budget, up to the last finished step.
        speeds: of the networks.
        tried: trainings by arm and epochs.
        trials: that each arm of the comparison was given; 0 before any.
    """

    path: Path
    about: str
    spent_s: float = 0.0
    speeds: dict[str, Speed] = field(default_factory=dict)
    tried: dict[str, Tried] = field(default_factory=dict)
    trials: int = 0

    @classmethod
    def open(cls, path: Path, about: str) -> "Journal":
        """The journal of earlier processes, or a new one where there is none, of other work, or a damaged one."""
        found = read_note(path)
        recorded = found.pop(_DIGEST, None)  # an earlier version wrote none
        if found.get("about") != about or recorded not in (None, digest(found)):
            return cls(path, about)
        try:
            speeds = {name: Speed(**speed) for name, speed in found["speeds"].items()}
            tried = {name: Tried(**values) for name, values in found["tried"].items()}
            return cls(path, about, float(found["spent_s"]), speeds, tried, int(found.get("trials", 0)))
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls(path, about)

    def save(self, spent_s: float) -> None:
        """Write it, whole or not at all."""
        self.spent_s = spent_s
        values = {key: value for key, value in asdict(self).items() if key != "path"}
        write_json(self.path, {**values, _DIGEST: digest(values)})
