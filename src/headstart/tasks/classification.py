"""Every image is of exactly one class."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from headstart.tasks.contract import Task
from headstart.tasks.scores import (
    areas,
    balanced_accuracy,
    cohen_kappa,
    confusion_counts,
    macro_f1,
    of_each_class,
)

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
        self.weighs = label_smoothing > 0 or class_weights is not None

    def training_summary(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Cheap metrics for the training split: ``acc``."""
        return {"acc": float(self.hits(outputs, targets).float().mean())}

    def hits(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`Task.hits`."""
        return self.probabilities(outputs).argmax(dim=1) == targets

    def evaluate(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """``loss``, ``acc``, ``f1`` (macro), ``auroc``, ``top5`` of six or more, ``balanced_acc``, ``kappa``, ``ap``.

        ``balanced_acc`` is the mean recall, ``kappa`` Cohen's, ``ap`` average precision. ``auroc`` and ``ap`` are of
        the second of two classes, of more the mean over each against the rest. Classes that do not occur in the split
        are left out of means; what is not defined there (``auroc`` where all targets are equal) is NaN.
        """
        return self.evaluate_each(outputs[None], targets)[0]

    def evaluate_each(self, outputs: Tensor, targets: Tensor) -> list[dict[str, float]]:
        """See :meth:`Task.evaluate_each`."""
        finite = torch.isfinite(outputs).flatten(1).all(dim=1)
        safe = torch.where(finite[:, None, None], outputs, 0.0)
        probabilities = torch.stack([self.probabilities(one) for one in safe])
        predicted = probabilities.argmax(dim=2)
        counts = confusion_counts(predicted, targets, len(self.classes))
        scored = [1] if len(self.classes) == 2 else targets.unique().tolist()
        positive = F.one_hot(targets, len(self.classes))[:, scored]
        under_roc, precision = areas(probabilities[:, :, scored], positive)
        columns = {
            "acc": (predicted == targets).sum(dim=1).float() / len(targets),
            "f1": macro_f1(counts),
            "auroc": under_roc.nanmean(dim=1),
            "balanced_acc": balanced_accuracy(counts),
            "kappa": cohen_kappa(counts),
            "ap": precision.nanmean(dim=1),
        }
        if "top5" in self.metric_names:
            best = probabilities.topk(_TOP_K, dim=2).indices
            columns["top5"] = (best == targets[:, None]).any(dim=2).sum(dim=1).float() / len(targets)
        return [
            {
                name: float(self.loss(self._tempered(one.float()), targets))
                if name == "loss"
                else float(columns[name][place])
                for name in self.metric_names
            }
            if finite[place]
            else dict.fromkeys(self.metric_names, math.nan)
            for place, one in enumerate(outputs)
        ]

    def per_class(self, outputs: Tensor, targets: Tensor) -> dict[str, list[float]]:
        """See :meth:`Task.per_class`."""
        predicted = self.probabilities(outputs).argmax(dim=1)
        counts = confusion_counts(predicted[None], targets, len(self.classes))[0]
        return of_each_class(counts.diagonal(), counts.sum(dim=0), counts.sum(dim=1))

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of :meth:`evaluate`."""
        top5 = ("top5",) if len(self.classes) > _TOP_K else ()
        return ("loss", "acc", "f1", "auroc", *top5, "balanced_acc", "kappa", "ap")

    def _weights(self, device: torch.device) -> Tensor | None:
        return None if self.class_weights is None else self._on("class_weights", self.class_weights, device)


class Multiclass(Classification):
    """One of several classes: softmax and cross-entropy, one output a class."""

    name = "multiclass"

    def __init__(self, classes: Sequence[str], *, label_smoothing: float, class_weights: Tensor | None) -> None:
        super().__init__(classes, label_smoothing=label_smoothing, class_weights=class_weights)
        self.outputs = len(self.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(outputs, targets)

    def objective(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy with smoothed targets; with class weights, the weighted mean."""
        weights = self._weights(outputs.device)
        if targets.ndim > 1 and weights is not None:
            each = F.cross_entropy(
                outputs, targets, weight=weights, label_smoothing=self.label_smoothing, reduction="none"
            )
            return each.sum() / (targets @ weights).sum()
        return F.cross_entropy(outputs, targets, weight=weights, label_smoothing=self.label_smoothing)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax."""
        return self._tempered(outputs.float()).softmax(dim=1)


class Binary(Classification):
    """One of two classes: one output, whose sigmoid is the probability of the second class."""

    name = "binary"
    outputs = 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy."""
        return F.binary_cross_entropy_with_logits(outputs[:, 0], targets.to(outputs.dtype))

    def objective(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy with smoothed targets; with class weights, the weighted mean."""
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
        logits = self._tempered(outputs.float())
        return torch.cat((torch.sigmoid(-logits), torch.sigmoid(logits)), dim=1)
