"""A trained network as others run it, and whether a file of it gives the same answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headstart.errors import RunError
from headstart.tasks import Segmentation, Task
from headstart.tasks.segmentation import enlarged

CHECKED_IMAGES, CHECKED_MASKS = 256, 16
"""An exported model is compared with the run's own on at most so many images."""


class Answers(nn.Module):
    """Normalised pixels ``(B, C, H, W)`` to probabilities ``(B, classes)``; of regression, the predicted values.

    Where every pixel is predicted, ``(B, classes, H, W)``.

    Args:
        network: pixels to ``(B, outputs)``.
        task: of the network.
    """

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.network, self.task = network, task
        self.output = "values" if task.name == "regression" else "probabilities"
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """What a person reads of each image."""
        outputs = self.network(pixels)
        if isinstance(self.task, Segmentation):
            outputs = enlarged(outputs, pixels.shape[-2:])
        return self.task.probabilities(outputs)

    def of(self, pixels: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """The answers to several inputs ``(C, H, W)``."""
        with torch.inference_mode():
            batches = [np.stack(pixels[start : start + batch_size]) for start in range(0, len(pixels), batch_size)]
            return np.concatenate([self(torch.from_numpy(batch)).numpy() for batch in batches])


@dataclass(frozen=True)
class Agreement:
    """How an exported model compares with the run's own.

    Attributes:
        images: how many were compared.
        kind: of images: ``val``, or ``generated`` where those of the run are not here.
        largest_difference: of any probability; of regression, relative to the largest value where that is above 1.
        same_class: how many have the same most probable class, in every pixel where each has one.
    """

    images: int
    kind: str
    largest_difference: float
    same_class: int

    def __str__(self) -> str:
        return (
            f"checked on {self.images} {self.kind} images: the largest difference is {self.largest_difference:.1e}, "
            f"{self.same_class} have the same class"
        )


def compare(wanted: np.ndarray, got: np.ndarray, *, kind: str, tolerance: float, what: str) -> Agreement:
    """Hold that two models give the same answers ``(N, classes)``, or ``(N, classes, H, W)``.

    Raises:
        RunError: they do not.
    """
    scale = max(1.0, float(np.abs(wanted).max()))
    largest = float(np.abs(wanted - got).max()) / scale if np.isfinite(got).all() else float("inf")
    if largest > tolerance:
        raise RunError(
            f"{what} answers differently from the run's model: by up to {largest:.2g} on {kind} images, where "
            f"{tolerance:g} is allowed, so nothing was written; try another --format"
        )
    same = (wanted.argmax(1) == got.argmax(1)).reshape(len(wanted), -1).all(axis=1)
    return Agreement(len(wanted), kind, largest, int(same.sum()))


def in_batches(run: Callable[[np.ndarray], np.ndarray], inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The answers of a model with a dynamic batch: to the first image alone, then to the rest, 32 at a time."""
    starts = [0, *range(1, len(inputs), 32)]
    ends = [*starts[1:], len(inputs)]
    return np.concatenate(
        [run(np.stack(inputs[start:end])) for start, end in zip(starts, ends, strict=True) if start < end]
    )
