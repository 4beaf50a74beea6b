"""Every image is of exactly one class."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from headstart.tasks.contract import Task

_TOP_K = 5


class Classification(Task):
    """One of several classes.

    Args:
        classes: their names.
        label_smoothing: share of the target's weight that goes to all classes alike.
        class_weights: ``(classes,)``, or None: all alike.
    """

    def __init__(self, classes: Sequence[str], *, label_smoothing: float, class_weights: Tensor | None) -> None:
        super().__init__(classes)
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights

    def training_summary(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Cheap metrics for the training split: ``acc``."""
        return {"acc": float((self.probabilities(outputs).argmax(dim=1) == targets).float().mean())}

    def evaluate(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """``loss``, ``acc``, ``f1`` (macro), ``auroc`` (macro, one class against the rest); ``top5`` of six or more.

        Classes that do not occur in the split are left out of ``auroc``; where all targets are equal it is NaN.
        """
        return self.evaluate_each(outputs[None], targets)[0]

    def evaluate_each(self, outputs: Tensor, targets: Tensor) -> list[dict[str, float]]:
        """See :meth:`Task.evaluate_each`."""
        finite = torch.isfinite(outputs).flatten(1).all(dim=1)
        safe = torch.where(finite[:, None, None], outputs, 0.0)
        probabilities = torch.stack([self.probabilities(one) for one in safe])
        predicted = probabilities.argmax(dim=2)
        columns = {
            "acc": (predicted == targets).sum(dim=1).float() / len(targets),
            "f1": _macro_f1(predicted, targets, len(self.classes)),
            "auroc": _auroc(probabilities, targets),
        }
        if "top5" in self.metric_names:
            best = probabilities.topk(_TOP_K, dim=2).indices
            columns["top5"] = (best == targets[:, None]).any(dim=2).sum(dim=1).float() / len(targets)
        return [
            {"loss": float(self.loss(one.float(), targets)), **{name: float(c[place]) for name, c in columns.items()}}
            if finite[place]
            else dict.fromkeys(self.metric_names, math.nan)
            for place, one in enumerate(outputs)
        ]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of :meth:`evaluate`."""
        return ("loss", "acc", "f1", "auroc", *(("top5",) if len(self.classes) > _TOP_K else ()))

    def _weights(self, device: torch.device) -> Tensor | None:
        return None if self.class_weights is None else self._on("class_weights", self.class_weights, device)


class Multiclass(Classification):
    """One of several classes: softmax and cross-entropy, one output a class."""

    name = "multiclass"

    def __init__(self, classes: Sequence[str], *, label_smoothing: float, class_weights: Tensor | None) -> None:
        super().__init__(classes, label_smoothing=label_smoothing, class_weights=class_weights)
        self.outputs = len(self.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy; with class weights, the weighted mean."""
        weights = self._weights(outputs.device)
        if targets.ndim > 1 and weights is not None:
            each = F.cross_entropy(
                outputs, targets, weight=weights, label_smoothing=self.label_smoothing, reduction="none"
            )
            return each.sum() / (targets @ weights).sum()
        return F.cross_entropy(outputs, targets, weight=weights, label_smoothing=self.label_smoothing)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax."""
        return outputs.float().softmax(dim=1)


class Binary(Classification):
    """One of two classes: one output, whose sigmoid is the probability of the second class."""

    name = "binary"
    outputs = 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy; with class weights, the weighted mean."""
        shares = targets if targets.ndim == 1 else targets[:, 1]
        smooth = shares.to(outputs.dtype) * (1.0 - self.label_smoothing) + self.label_smoothing / 2
        losses = F.binary_cross_entropy_with_logits(outputs[:, 0], smooth, reduction="none")
        weights = self._weights(outputs.device)
        if weights is None:
            return losses.mean()
        each = weights[targets] if targets.ndim == 1 else targets @ weights
        return (each * losses).sum() / each.sum()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Sigmoid, and its complement for the first class."""
        logits = outputs.float()
        return torch.cat((torch.sigmoid(-logits), torch.sigmoid(logits)), dim=1)


def _macro_f1(predicted: Tensor, targets: Tensor, classes: int) -> Tensor:
    """``(jobs, N)`` class numbers to ``(jobs,)``: the mean over classes that are there or were predicted."""
    jobs = len(predicted)
    cells = (torch.arange(jobs, device=targets.device)[:, None] * classes + targets) * classes + predicted
    table = torch.bincount(cells.flatten(), minlength=jobs * classes**2).view(jobs, classes, classes)
    hits, seen = table.diagonal(dim1=1, dim2=2).float(), (table.sum(dim=1) + table.sum(dim=2)).float()
    scores = torch.where(seen > 0, 2 * hits / seen.clamp(min=1), 0.0)
    return scores.sum(dim=1) / (seen > 0).sum(dim=1)


def _auroc(probabilities: Tensor, targets: Tensor) -> Tensor:
    """``(jobs, N, classes)`` to ``(jobs,)``: mean area under the ROC curves of each class against the rest.

    The area is the probability that an image of the class ranks before one of the rest, ties counting half (Hanley and
    McNeil, Radiology 1982).
    """
    classes = probabilities.shape[2]
    counts = torch.bincount(targets, minlength=classes)
    present = [number for number, count in enumerate(counts.tolist()) if 0 < count < len(targets)]
    if not present:
        return torch.full((len(probabilities),), math.nan)
    scored = present[-1:] if classes == 2 else present
    ranks = _mean_ranks(probabilities[:, :, scored].transpose(1, 2).contiguous())
    positive = torch.stack([targets == number for number in scored]).double()
    count = positive.sum(dim=1)
    areas = ((ranks * positive).sum(dim=2) - count * (count + 1) / 2) / (count * (len(targets) - count))
    return areas.mean(dim=1)


def _mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 along the last dimension; equal values share the mean of theirs."""
    ordered, order = values.sort(dim=-1)
    length = values.shape[-1]
    places = torch.arange(length, device=values.device).expand_as(ordered)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = torch.where(new, places, 0).cummax(dim=-1).values
    ends = torch.ones_like(new)
    ends[..., :-1] = new[..., 1:]
    last = torch.where(ends, places, length).flip(-1).cummin(dim=-1).values.flip(-1)
    return torch.empty_like(ordered, dtype=torch.float64).scatter_(-1, order, (first + last).double() / 2 + 1)
