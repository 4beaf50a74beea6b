"""Every image is of exactly one class."""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_accuracy,
    multiclass_f1_score,
)

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

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of ``(B, outputs)`` and ``(B,)`` class numbers or ``(B, classes)`` shares; a scalar."""

    @abstractmethod
    def probabilities(self, outputs: Tensor) -> Tensor:
        """``(B, outputs)`` to ``(B, classes)`` float32, each row summing to 1."""

    def training_summary(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Cheap metrics for the training split: ``acc``."""
        return {"acc": float((self.predictions(outputs) == targets).float().mean())}

    def predictions(self, outputs: Tensor) -> Tensor:
        """``(B, outputs)`` to ``(B,)`` class numbers."""
        return self.probabilities(outputs).argmax(dim=1)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Metrics of a whole split.

        They are ``loss``, ``acc``, ``f1`` (macro), ``auroc`` (macro, one class against the rest) and, with more than
        five classes, ``top5``.
        Classes that do not occur in the split are left out of ``auroc``; where no class can be told from the
        others (all targets are equal) it is NaN.

        Args:
            outputs: ``(N, outputs)``.
            targets: ``(N,)`` class numbers.
        """
        if not torch.isfinite(outputs).all():
            return dict.fromkeys(self.metric_names, math.nan)
        probabilities = self.probabilities(outputs)
        count = len(self.classes)
        values = {
            "loss": float(self.loss(outputs.float(), targets)),
            "acc": float(multiclass_accuracy(probabilities, targets, count, average="micro")),
            "f1": float(multiclass_f1_score(probabilities, targets, count, average="macro")),
            "auroc": _auroc(probabilities, targets),
        }
        if "top5" in self.metric_names:
            values["top5"] = float(multiclass_accuracy(probabilities, targets, count, average="micro", top_k=_TOP_K))
        return values

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of :meth:`evaluate`."""
        return ("loss", "acc", "f1", "auroc", *(("top5",) if len(self.classes) > _TOP_K else ()))

    def _weights(self, device: torch.device) -> Tensor | None:
        if self.class_weights is None:
            return None
        return self._on("class_weights", self.class_weights, device)


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


def _auroc(probabilities: Tensor, targets: Tensor) -> float:
    """Mean over classes of the area under the ROC curve of each against the rest, where both occur."""
    counts = torch.bincount(targets, minlength=probabilities.shape[1])
    present = [c for c, n in enumerate(counts.tolist()) if 0 < n < len(targets)]
    if not present:
        return math.nan
    # With two classes each is the rest of the other: one area.
    scored = present[-1:] if probabilities.shape[1] == 2 else present
    areas = [float(binary_auroc(probabilities[:, c], (targets == c).long())) for c in scored]
    return sum(min(area, 1.0) for area in areas) / len(areas)  # In single precision an area can come out above 1.
