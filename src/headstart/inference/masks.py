"""Predicted masks as files beside the table of their shares."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.errors import ConfigError
from headstart.execution.predict import Prediction
from headstart.inference.predict import Following, Predictor
from headstart.system.atomic import atomic_path
from headstart.system.colours import palette


@dataclass(frozen=True)
class WithMasks(Following):
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

    def follow(self, prediction: Prediction, device: str) -> Prediction:
        """The same, after its mask is written."""
        if prediction.mask is not None:
            write_mask(self.folder / mask_name(prediction.path), prediction.mask)
        return prediction


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
