"""Predicted masks as files beside the table of their shares."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from headstart.data.images import DECODE_ERRORS, open_image
from headstart.errors import ConfigError, DataError
from headstart.execution.predict import Prediction
from headstart.inference.predict import Following, Predictor
from headstart.system.atomic import atomic_path
from headstart.system.colours import palette
from headstart.system.digests import digest
from headstart.system.regular import check_regular

_MARK = "headstart:image"


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
            write_mask(self.folder / mask_name(prediction.path), prediction.mask, image=prediction.path)
        return prediction


def mask_name(image: str) -> Path:
    """Where the mask of an image lies in the folder of masks: ``photos/a.jpg`` is ``photos/a.png``."""
    path = Path(image)
    parts = [part for part in path.parts if part not in (path.anchor, "..")]
    return Path(*parts).with_suffix(".png")


def write_mask(path: Path, mask: np.ndarray, *, image: str) -> None:
    """A mask ``(H, W)`` of class numbers as a palette PNG, whose pixels are those numbers and look different.

    Args:
        path: of the PNG.
        mask: unsigned bytes.
        image: that it is of, whose digest the PNG bears.

    Raises:
        DataError: there is a file of that name which is no predicted mask of this image.
    """
    key = digest(str(Path(image).absolute()).encode("utf-8", "surrogateescape"))
    if path.exists() and _image_of(path) != key:
        raise DataError(
            f"--masks: {path} is there already and no predicted mask of {image}; give an empty folder, and predict "
            "images whose names differ only in their endings into a folder each"
        )
    picture = Image.fromarray(mask)
    picture.putpalette(palette().ravel().tolist())
    about = PngInfo()
    about.add_text(_MARK, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=about)


def _image_of(path: Path) -> str | None:
    try:
        check_regular(path)
        with open_image(path) as picture:
            return picture.info.get(_MARK)
    except (*DECODE_ERRORS, DataError):
        return None
