"""Every pixel is of exactly one class."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from headstart.data.records import IGNORED
from headstart.tasks.contract import Task

_AT_ONCE = 1 << 26
"""Numbers that a prediction holds at once: 256 MB."""


class Segmentation(Task):
    """A class for each pixel: cross-entropy over all pixels of a batch, mean intersection over union over a split.

    Targets are masks ``(B, H, W)`` of class numbers, 255 where a pixel does not count. Outputs ``(B, classes, h, w)``
    are enlarged bilinearly to the masks. What is kept of an image until the split is whole is its confusion matrix
    (:meth:`rows`), so memory does not grow with its size.

    Args:
        classes: names, in the order of their numbers.
        label_smoothing: share of the target's weight that goes to all classes alike.
        class_weights: ``(classes,)``, or None: all alike.
    """

    name = "segmentation"
    monitor = "val/miou"
    one_class = False

    def __init__(self, classes: Sequence[str], *, label_smoothing: float, class_weights: Tensor | None) -> None:
        super().__init__(classes)
        self.outputs = len(self.classes)
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.weighs = label_smoothing > 0 or class_weights is not None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of :meth:`evaluate`."""
        return ("loss", "miou", "acc", *(f"iou_{name}" for name in self.classes))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, mean over the pixels that count; 0 where none does."""
        losses = _losses(enlarged(outputs, targets.shape[-2:]), targets)
        return losses.sum() / (targets != IGNORED).sum().clamp(min=1)

    def objective(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy with smoothed targets; with class weights, the weighted mean over the pixels that count."""
        weights = self.class_weights
        if weights is not None:
            weights = self._on("class_weights", weights, outputs.device)
        outputs, counts = enlarged(outputs, targets.shape[-2:]), targets != IGNORED
        losses = _losses(outputs, targets, weight=weights, label_smoothing=self.label_smoothing)
        if weights is None:
            return losses.sum() / counts.sum().clamp(min=1)
        return losses.sum() / weights[targets[counts].long()].sum().clamp(min=torch.finfo(losses.dtype).tiny)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax ``(B, classes, h, w)`` of outputs; of :meth:`rows` the predicted share of each class."""
        if outputs.ndim == 4:
            return outputs.float().softmax(dim=1)
        counts = self._confusion(outputs).sum(dim=1)
        broken = torch.where(torch.isfinite(outputs[:, -1]), 0.0, math.nan)
        return (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).float() + broken[:, None]

    def masks(self, outputs: Tensor, size: tuple[int, int]) -> Tensor:
        """The most probable class of each pixel, ``(B, *size)`` bytes; of large ones class by class, to save memory."""
        if len(outputs) * outputs.shape[1] * math.prod(size) <= _AT_ONCE:
            return enlarged(outputs, size).argmax(dim=1).to(torch.uint8)
        best = enlarged(outputs[:, :1], size).clone()
        found = torch.zeros_like(best, dtype=torch.uint8)
        for place in range(1, outputs.shape[1]):
            one = enlarged(outputs[:, place : place + 1], size)
            found[one > best] = place
            torch.maximum(best, one, out=best)
        return found[:, 0]

    def right(self, rows: Tensor) -> Tensor:
        """Of :meth:`rows` the share of each image's pixels that is right, ``(N,)``; 1 where none counts."""
        table = self._confusion(rows)
        total = table.sum(dim=(1, 2))
        return torch.where(total > 0, table.diagonal(dim1=1, dim2=2).sum(dim=1) / total.clamp(min=1), 1.0)

    def rows(self, outputs: Tensor, targets: Tensor, *, training: bool = False) -> tuple[Tensor, Tensor]:
        """See :meth:`Task.rows`: the flat confusion matrix of each image (true class by predicted) and its losses.

        Of training only the pixels that are right, those that count, and the losses, at the resolution of the outputs.
        The targets become each image's true share of each class.
        """
        if training:
            coarse = F.interpolate(targets[:, None].float(), size=outputs.shape[-2:], mode="nearest-exact")[:, 0].long()
            counts = coarse != IGNORED
            right = (outputs.argmax(dim=1) == coarse) & counts
            parts = [part.flatten(1).sum(dim=1).float() for part in (right, counts, _losses(outputs.detach(), coarse))]
            return torch.stack(parts, dim=1), parts[0][:, None]
        outputs, targets = enlarged(outputs.float(), targets.shape[-2:]), targets.long()
        confusion = confusion_of(outputs.argmax(dim=1), targets, len(self.classes))
        shares = confusion.sum(dim=2) / confusion.sum(dim=(1, 2), keepdim=True)[:, 0].clamp(min=1)
        losses = _losses(outputs, targets).flatten(1).sum(dim=1, keepdim=True)
        return torch.cat([confusion.flatten(1).float(), losses], dim=1), shares

    def kept(self, outputs: Tensor) -> dict[str, Tensor]:
        """Of each image the right pixels of each class (``hits``), and the pixels that count (``pixels``)."""
        table = self._confusion(outputs).long()
        return {"hits": table.diagonal(dim1=1, dim2=2), "pixels": table.sum(dim=(1, 2))}

    def evaluate(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Of the :meth:`rows` of a split: ``loss``, ``miou``, ``acc`` (share of the pixels) and ``iou_<class>``.

        All are of one confusion matrix over the split. A class that neither is there nor was predicted has no IoU and
        is left out of the mean.
        """
        if not torch.isfinite(outputs).all():
            return dict.fromkeys(self.metric_names, math.nan)
        table = self._confusion(outputs).sum(dim=0)
        hits, seen = table.diagonal(), table.sum(dim=0) + table.sum(dim=1)
        union = seen - hits
        ious = torch.where(union > 0, hits / union.clamp(min=1), math.nan)
        counted = float(table.sum())
        return {
            "loss": float(outputs[:, -1].double().sum()) / counted if counted else math.nan,
            "miou": float(ious.nanmean()),
            "acc": float(hits.sum()) / counted if counted else math.nan,
            **{f"iou_{name}": float(iou) for name, iou in zip(self.classes, ious, strict=True)},
        }

    def training_summary(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Cheap metrics for the training split, of its :meth:`rows`: ``acc``, at the resolution of the outputs."""
        right, counted, _ = outputs.double().sum(dim=0).tolist()
        return {"acc": right / counted if counted else math.nan}

    def training_metrics(
        self, outputs: Tensor, targets: Tensor, *, objective: float, differs: bool
    ) -> dict[str, float]:
        """See :meth:`Task.training_metrics`; a ``loss`` beside another objective is of the outputs' resolution."""
        summary = self.training_summary(outputs, targets)
        if not differs:
            return {"loss": objective, **summary}
        _, counted, losses = outputs.double().sum(dim=0).tolist()
        return {"loss": losses / max(counted, 1.0), "objective": objective, **summary}

    def _confusion(self, rows: Tensor) -> Tensor:
        """``(N, classes, classes)`` counts in 64 bits."""
        return rows[:, :-1].double().unflatten(1, (len(self.classes), len(self.classes)))


def _losses(outputs: Tensor, targets: Tensor, **choices: Any) -> Tensor:
    """Of each pixel, ``(B, H, W)``; 0 where it does not count."""
    return F.cross_entropy(outputs, targets.long(), ignore_index=IGNORED, reduction="none", **choices)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """``(B, C, h, w)`` to ``(B, C, *size)``, bilinearly."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def confusion_of(predicted: Tensor, targets: Tensor, classes: int) -> Tensor:
    """``(B, H, W)`` class numbers to ``(B, classes, classes)`` counts, true class by predicted; 255 is left out."""
    image = torch.arange(len(targets), device=targets.device)[:, None, None]
    cells = ((image * classes + targets) * classes + predicted)[targets != IGNORED]
    return torch.bincount(cells, minlength=len(targets) * classes**2).view(-1, classes, classes)
