"""Outputs collected over an epoch, and what a task makes of a whole split of them.

Nothing is moved off the device or reduced while batches run, so evaluation costs no synchronisation a step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, distributed

from headstart.model import TransferModel
from headstart.tasks import Task


@dataclass(frozen=True)
class Predictions:
    """A model's answer on one split, in the split's order.

    Attributes:
        index: ``(N,)`` positions in the split.
        targets: ``(N,)`` or ``(N, outputs)``.
        outputs: ``(N, outputs)`` float32, before the activation.
        probabilities: ``(N, classes)`` float32 (for regression, the predicted values).
        metrics: flat names without the split's prefix, the loss included.
    """

    index: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray
    probabilities: np.ndarray
    metrics: dict[str, float]


class ScoredModel(Protocol):
    """A trained model with its answers; :class:`headstart.module.TransferModule` is one."""

    model: TransferModel
    task: Task
    predictions: dict[str, Predictions]


@dataclass
class EpochOutputs:
    """Detached outputs, targets, positions and losses of the batches of one epoch."""

    outputs: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    index: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)

    def add(self, outputs: Tensor, targets: Tensor, index: Tensor, loss: Tensor | None = None) -> None:
        """Keep one batch."""
        self.outputs.append(outputs.detach())
        self.targets.append(targets)
        self.index.append(index)
        if loss is not None:
            self.losses.append(loss.detach())

    def take(self, summarise: Callable[[Tensor, Tensor], dict[str, float]]) -> dict[str, float]:
        """Mean loss and ``summarise(outputs, targets)`` of this process's batches; forgets them."""
        sizes = torch.tensor([len(targets) for targets in self.targets], dtype=torch.float32)
        losses = torch.stack(self.losses).float().cpu()
        values = {"loss": float((losses * sizes).sum() / sizes.sum())}
        values |= summarise(torch.cat(self.outputs).cpu(), torch.cat(self.targets).cpu())
        self._clear()
        return values

    def gather(self, task: Task) -> Predictions:
        """The split's predictions, gathered over all processes, in the split's order; forgets them."""
        parts = (torch.cat(self.outputs).float().cpu(), torch.cat(self.targets).cpu(), torch.cat(self.index).cpu())
        self._clear()
        gathered = [parts]
        if distributed.is_available() and distributed.is_initialized():
            gathered = [parts] * distributed.get_world_size()
            distributed.all_gather_object(gathered, parts)
        outputs, targets, index = (torch.cat(column) for column in zip(*gathered, strict=True))
        # A sampler may repeat samples to fill the last shards; each counts once.
        _, first = np.unique(index.numpy(), return_index=True)
        outputs, targets, index = outputs[first], targets[first], index[first]
        return Predictions(
            index=index.numpy(),
            targets=targets.numpy(),
            outputs=outputs.numpy(),
            probabilities=task.probabilities(outputs).float().numpy(),
            metrics=task.evaluate(outputs, targets),
        )

    def _clear(self) -> None:
        self.outputs, self.targets, self.index, self.losses = [], [], [], []
