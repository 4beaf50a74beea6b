"""What a set of weights expects of its input. It travels with the weights, from the backbone to the data."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Fit = Literal["crop", "squash", "pad"]


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
    crop_mode: Literal["center", "squash", "border"] = "center"

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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InputSpec":
        """The inverse of :meth:`as_dict`."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)
