"""A model that gives no class where it is not sure enough."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import ConfigError, RunError
from headstart.execution.predict import Prediction, Unreadable
from headstart.runs.reader import read_run

if TYPE_CHECKING:
    from headstart.inference.predict import Predictor
    from headstart.tasks import Task
    from headstart.tasks.calibration import Abstention


@dataclass(frozen=True)
class Doubting:
    """A model whose answers have no class (an empty label) below a probability; the probabilities stay.

    Attributes:
        model: of one class an image.
        limit: what validation says of it.
    """

    model: "Predictor"
    limit: "Abstention"

    @property
    def task(self) -> "Task":
        """Of the model."""
        return self.model.task

    @property
    def classes(self) -> Sequence[str]:
        """Of the model."""
        return self.model.classes

    def stream(self, images: Iterator[str], *, batch_size: int, device: str) -> Iterator[Prediction | Unreadable]:
        """See :class:`~headstart.inference.predict.Predictor`."""
        for outcome in self.model.stream(images, batch_size=batch_size, device=device):
            if isinstance(outcome, Prediction) and max(outcome.probabilities) < self.limit.least:
                yield replace(outcome, label="")
            else:
                yield outcome


def doubting(model: "Predictor", run: Path, max_error: float) -> Doubting:
    """The model with the limit that keeps an error rate on the run's validation images.

    Args:
        model: of the run.
        run: the run directory, which holds what was predicted for these images.
        max_error: share of wrong classes among the images that get one.

    Raises:
        ConfigError: the task has no single class an image, or no limit keeps the rate.
        RunError: the run's predictions are not there.
    """
    from headstart.tasks.calibration import abstention

    if not model.task.one_class:
        raise ConfigError(f"--max-error needs one class an image and does not go with task={model.task.name}")
    stored = read_run(run).predictions("val")
    if stored is None:
        raise RunError(
            f"{run} holds no predictions_val.npz, by which --max-error is kept; copy the run directory again"
        )
    limit = abstention(stored.probabilities, stored.targets, max_error)
    if limit is None:
        raise ConfigError(
            f"--max-error={max_error:g} cannot be kept: on validation the surest answers of this run are wrong more "
            "often than that; allow more"
        )
    return Doubting(model, limit)
