"""What a finished run says about an image. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Prediction:
    """What a run says about one image.

    Attributes:
        path: of the image, as it was found; empty for one that came as pixels.
        label: the most probable class, empty where that is to be left open; of several labels those predicted, with
            ``|`` between; of numbers nothing.
        probabilities: of every class, in the run's order; of numbers the predicted values; of a mask the share of its
            pixels that each class has.
        mask: where every pixel is predicted, ``(H, W)`` class numbers in the image's own size.
    """

    path: str
    label: str
    probabilities: tuple[float, ...]
    mask: "np.ndarray | None" = None


@dataclass(frozen=True)
class Unreadable:
    """A file that is no usable image, and why."""

    path: str
    reason: str
