"""Outputs collected over an epoch, and what a task makes of a whole split of them.

Nothing is moved off the device or reduced while batches run, so evaluation costs no synchronisation a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, distributed

from headstart.errors import DivergedError
from headstart.tasks.contract import Task

if TYPE_CHECKING:
    from headstart.model.transfer_model import TransferModel


@dataclass(frozen=True)
class Predictions:
    """A model's answer on one split, in the split's order.

    Attributes:
        index: ``(N,)`` positions in the split.
        targets: ``(N,)`` or ``(N, outputs)``; of masks the true share of each class.
        outputs: ``(N, outputs)`` float32, before the activation; of masks as :meth:`Task.rows` keeps them.
        probabilities: ``(N, classes)`` float32; for regression, the predicted values in 64 bits; of masks the predicted
            share of each class.
        metrics: flat names without the split's prefix, the loss included.
    """

    index: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray
    probabilities: np.ndarray
    metrics: dict[str, float]


class ScoredModel(Protocol):
    """A trained model with its answers; :class:`headstart.training.module.TransferModule` is one."""

    model: "TransferModel"
    task: Task
    predictions: dict[str, Predictions]


def check_numbers(predictions: Mapping[str, Predictions]) -> None:
    """Hold that a model's answers are numbers.

    Args:
        predictions: by split.

    Raises:
        DivergedError: some are NaN or infinite.
    """
    for split, found in predictions.items():
        good = np.isfinite(found.probabilities).reshape(len(found.probabilities), -1).all(axis=1)
        if not good.all():
            raise DivergedError(
                f"after training, {int((~good).sum())} of {len(good)} predictions on {split} are not numbers; lower "
                "optimizer.lr, warm up (scheduler.warmup_epochs) or clip gradients (trainer.gradient_clip_val)"
            )


@dataclass
class Rows:
    """Rows of an epoch, copied into few large blocks.

    A small tensor kept from every step would lie between the large ones that each step frees, which then cannot be
    reused as a whole: the process would grow with every step of the epoch.
    """

    blocks: list[Tensor] = field(default_factory=list)
    used: list[int] = field(default_factory=list)

    def append(self, rows: Tensor) -> None:
        """Keep ``(B, ...)``, without its graph."""
        rows = rows.detach()
        if not self.blocks or not self._fits(rows):
            size = max(64 * len(rows), 2 * len(self.blocks[-1]) if self.blocks else 0)
            self.blocks.append(rows.new_empty((size, *rows.shape[1:])))
            self.used.append(0)
        start = self.used[-1]
        self.used[-1] += len(rows)
        self.blocks[-1][start : self.used[-1]] = rows

    def all(self) -> Tensor:
        """``(N, ...)``, in order, where they were made."""
        return torch.cat([block[:used] for block, used in zip(self.blocks, self.used, strict=True)])

    def _fits(self, rows: Tensor) -> bool:
        block = self.blocks[-1]
        alike = (block.dtype, block.device, block.shape[1:]) == (rows.dtype, rows.device, rows.shape[1:])
        return alike and self.used[-1] + len(rows) <= len(block)


@dataclass
class EpochOutputs:
    """Detached outputs and targets (as :meth:`Task.rows` gives them), positions and losses of an epoch's batches."""

    outputs: Rows = field(default_factory=Rows)
    targets: Rows = field(default_factory=Rows)
    index: Rows = field(default_factory=Rows)
    losses: Rows = field(default_factory=Rows)
    sizes: list[int] = field(default_factory=list)

    def add(self, outputs: Tensor, targets: Tensor, index: Tensor, loss: Tensor | None = None) -> None:
        """Keep one batch."""
        self.outputs.append(outputs)
        self.targets.append(targets)
        self.index.append(index)
        self.sizes.append(len(targets))
        if loss is not None:
            self.losses.append(loss[None])

    def take(self, task: Task, *, differs: bool) -> dict[str, float]:
        """:meth:`Task.training_metrics` of this process's batches, whose losses are the objective; forgets them."""
        sizes, losses = torch.tensor(self.sizes, dtype=torch.float32), self.losses.all().float().cpu()
        objective = float((losses * sizes).sum() / sizes.sum())
        outputs, targets = self.outputs.all().cpu(), self.targets.all().cpu()
        self._clear()
        return task.training_metrics(outputs, targets, objective=objective, differs=differs)

    def gather(self, task: Task) -> Predictions:
        """The split's predictions, gathered over all processes, in the split's order; forgets them."""
        parts = (self.outputs.all().float().cpu(), self.targets.all().cpu(), self.index.all().cpu())
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
            probabilities=task.probabilities(outputs).numpy(),
            metrics=task.evaluate(outputs, targets),
        )

    def _clear(self) -> None:
        self.outputs, self.targets, self.index, self.losses, self.sizes = Rows(), Rows(), Rows(), Rows(), []
