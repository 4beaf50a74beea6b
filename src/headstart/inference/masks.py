"""Predicted masks as files beside the table of their shares."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headstart.errors import ConfigError
from headstart.execution.predict import Prediction, Unreadable
from headstart.inference.predict import Predictor
from headstart.system.atomic import atomic_path
from headstart.system.colours import palette

if TYPE_CHECKING:
    from headstart.tasks import Task


@dataclass(frozen=True)
class WithMasks:
    """A model that writes each predicted mask as a PNG when its row is asked for.

    Attributes:
        model: of ``task=segmentation``.
        folder: for the masks, in folders like those of the images.

    Raises:
        ConfigError: the model predicts no masks.
    """

    model: Predictor
    folder: Path

    def __post_init__(self) -> None:
        if self.task.name != "segmentation":
            raise ConfigError(f"--masks={self.folder}: a run of task={self.task.name} predicts no masks; leave it out")

    @property
    def task(self) -> "Task":
        """The model's."""
        return self.model.task

    @property
    def classes(self) -> Sequence[str]:
        """The model's."""
        return self.model.classes

    def stream(self, images: Iterator[str], *, batch_size: int, device: str) -> Iterator[Prediction | Unreadable]:
        """The model's outcomes, each after its mask is written."""
        for outcome in self.model.stream(images, batch_size=batch_size, device=device):
            if isinstance(outcome, Prediction) and outcome.mask is not None:
                write_mask(self.folder / mask_name(outcome.path), outcome.mask)
            yield outcome


def mask_name(image: str) -> Path:
    """Where the mask of an image lies in the folder of masks: ``photos/a.jpg`` is ``photos/a.png``."""
    path = Path(image)
    parts = [part for part in path.parts if part not in (path.anchor, "..")]
    return Path(*parts).with_suffix(".png")


def write_mask(path: Path, mask: np.ndarray) -> None:
    """A mask ``(H, W)`` of class numbers as a palette PNG, whose pixels are those numbers and look different."""
    image = Image.fromarray(mask)
    image.putpalette(palette().ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
