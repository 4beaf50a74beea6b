"""What a set of weights expects of its input. It travels with the weights, from the backbone to the data."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

Interpolation = Literal["nearest", "bilinear", "bicubic"]
CropMode = Literal["center", "squash", "border"]
_RESIZING = (*get_args(Interpolation), "box", "hamming", "lanczos")  # of other people's weights too
Fit = Literal["crop", "squash", "pad"]
_MOST_PIXELS = 80_000_000


@dataclass(frozen=True)
class InputSpec:
    """Size, channels and normalisation of the images a backbone was trained on.

    Attributes:
        channels: number of image channels; 3 is RGB, 1 is luminance.
        height: rows in pixels.
        width: columns in pixels.
        mean: per channel, in the 0 to 1 range of pixel values; one value a channel.
        std: per channel, likewise.
        interpolation: how evaluation images are resized.
        crop_pct: share of the resized image's shorter side that the central crop keeps; 1.0 with
            ``crop_mode="squash"`` means that the whole image is resized without cropping.
        crop_mode: timm's ``center`` (resize the shorter side to size / crop_pct, crop the centre),
            ``squash`` (resize both sides to size / crop_pct, then crop the centre) or ``border`` (resize the
            longer side to size / crop_pct, pad with the mean, then crop the centre).
    """

    channels: int = 3
    height: int = 224
    width: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    crop_pct: float = 0.875
    crop_mode: CropMode = "center"

    def fitted(self, fit: Fit | None) -> "InputSpec":
        """With another way from an image of any shape to the network's: what ``crop_mode`` says, by its plain name.

        Args:
            fit: ``crop`` (the middle), ``squash`` (the whole image, its sides squeezed to those of the network) or
                ``pad`` (the whole image in its own shape, with borders of the mean colour); None: as it is.
        """
        if fit is None:
            return self
        if fit == "crop":
            return replace(self, crop_mode="center")
        return replace(self, crop_pct=1.0, crop_mode="squash" if fit == "squash" else "border")

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        return (self.channels, self.height, self.width)

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON and fingerprints."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def checked(self) -> "InputSpec":
        """The same, where it makes sense; it may come from a file of anybody's.

        Raises:
            ValueError: it does not.
        """
        if not all(type(size) is int and size > 0 for size in self.shape):
            raise ValueError(f"channels, height and width are {self.shape}, not whole numbers above 0")
        for key, values in (("mean", self.mean), ("std", self.std)):
            numbers = isinstance(values, tuple) and all(isinstance(value, int | float) for value in values)
            if not numbers or len(values) != self.channels or not all(map(math.isfinite, values)):
                raise ValueError(f"{key} is {values}, not one number a channel")
        if min(self.std) <= 0 or not 0 < self.crop_pct <= 1:
            raise ValueError(f"std {self.std} must be above 0, crop_pct {self.crop_pct} above 0 and at most 1")
        if self.height * self.width > _MOST_PIXELS * self.crop_pct**2:
            raise ValueError(f"{self.height} x {self.width} (crop_pct {self.crop_pct}) are more pixels than fit")
        for value, valid in ((self.interpolation, _RESIZING), (self.crop_mode, get_args(CropMode))):
            if value not in valid:
                raise ValueError(f"{value!r} is none of {', '.join(valid)}")
        return self

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InputSpec":
        """The inverse of :meth:`as_dict`."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


def pair(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """``(height, width)`` of one number or two."""
    height, width = (size, size) if isinstance(size, int | None) else size
    return None if height is None or width is None else (height, width)
