"""How much the choice of an epoch flatters the score that chose it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.tasks import Task

_HALVES = 200
_MOST_IMAGES = 10_000


class EpochChoice:
    """Which validation images were classified rightly in each epoch, where accuracy chooses the epoch."""

    def __init__(self) -> None:
        self._right: list[Tensor] = []

    def see(self, task: Task, outputs: Tensor, targets: Tensor) -> None:
        """Note an epoch's answers on validation, if it is by accuracy that the task chooses."""
        if task.monitor == "val/acc":
            self.note(task.hits(outputs, targets))

    def note(self, right: Tensor | None) -> None:
        """Keep ``(N,)`` bool, of the split's images in the same order each time; a part of very many."""
        if right is not None:
            self._right.append(right[:: -(-len(right) // _MOST_IMAGES)].cpu())

    def record(self) -> dict[str, Any]:
        """``choice`` for a result's ``details``: its ``optimism``, ``epochs`` and ``images``; empty of one epoch."""
        if len(self._right) < 2 or len(self._right[0]) < 2:
            return {}
        right = torch.stack(self._right).numpy()
        return {"choice": {"optimism": optimism(right), "epochs": right.shape[0], "images": right.shape[1]}}

    def state_dict(self) -> dict[str, Any]:
        """A bit an image and epoch."""
        if not self._right:
            return {}
        right = torch.stack(self._right).numpy()
        return {"right": torch.from_numpy(np.packbits(right, axis=1)), "images": right.shape[1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` gave."""
        if state:
            self._right = list(torch.from_numpy(np.unpackbits(state["right"], axis=1, count=state["images"]) > 0))


def optimism(right: np.ndarray) -> float:
    """By how much the best epoch's accuracy exceeds what that epoch would have on new images, on average.

    Split-half: the epoch that one random half of the images chooses is scored on the other half, both ways, many times.
    Chance moves the accuracy on half of the images by √2 as much as on all of them, so that is taken off. Cawley &
    Talbot (2010), On Over-fitting in Model Selection, section 5, measure the bias in this way.

    Args:
        right: ``(epochs, N)`` bool; two images at least.
    """
    random = np.random.default_rng(0)
    images = right.shape[1]
    half = images // 2
    first = np.zeros((images, _HALVES), dtype=np.float32)
    for column in first.T:
        column[random.permutation(images)[:half]] = 1.0
    hits = right.astype(np.float32) @ first
    one, other = hits / half, (right.sum(axis=1, keepdims=True) - hits) / (images - half)
    columns = np.arange(_HALVES)
    gaps = []
    for here, there in ((one, other), (other, one)):
        chosen = here.argmax(axis=0)
        gaps.append(here[chosen, columns] - there[chosen, columns])
    return max(0.0, float(np.mean(gaps)) / 2**0.5)
