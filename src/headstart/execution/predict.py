"""What a finished run says about an image. No torch here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What a run says about one image.

    Attributes:
        path: of the image, as it was found; empty for one that came as pixels.
        label: the most probable class, empty where that is to be left open; of several labels those predicted, with
            ``|`` between; of numbers nothing.
        probabilities: of every class, in the run's order; of numbers the predicted values.
    """

    path: str
    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Unreadable:
    """A file that is no usable image, and why."""

    path: str
    reason: str
