"""A model that gives no class where it is not sure enough."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import ConfigError, RunError
from headstart.execution.predict import Prediction
from headstart.inference.predict import Following, Predictor
from headstart.runs.reader import read_run

if TYPE_CHECKING:
    from headstart.tasks.calibration import Abstention


@dataclass(frozen=True)
class Doubting(Following):
    """A model whose answers have no class (an empty label) below a probability; the probabilities stay.

    Attributes:
        model: of one class an image.
        limit: what validation says of it.
    """

    model: Predictor
    limit: "Abstention"

    def follow(self, prediction: Prediction, device: str) -> Prediction:
        """Without its class where it is not sure enough."""
        return replace(prediction, label="") if max(prediction.probabilities) < self.limit.least else prediction


def doubting(model: Predictor, run: Path, max_error: float) -> Doubting:
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
