"""Every image has any number of labels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from headstart.tasks.contract import Task
from headstart.tasks.scores import areas, of_each_class

USUAL_THRESHOLD = 0.5
"""A label is given from this probability on, unless validation says otherwise."""


class Multilabel(Task):
    """Any number of labels an image: one sigmoid a label, binary cross-entropy, mean average precision.

    Targets are ``(B, classes)``, 1 where a label is present and 0 where it is not.

    Args:
        classes: names of the labels.
        label_smoothing: targets move this far towards one half.
        positive_weights: ``(classes,)``, of each label's loss where it is present; None: 1.

    Attributes:
        thresholds: probabilities from which on each label is given.
    """

    name = "multilabel"
    monitor = "val/map"
    one_class = False

    def __init__(self, classes: Sequence[str], *, label_smoothing: float, positive_weights: Tensor | None) -> None:
        super().__init__(classes)
        self.outputs = len(self.classes)
        self.label_smoothing, self.positive_weights = label_smoothing, positive_weights
        self.thresholds = (USUAL_THRESHOLD,) * self.outputs
        self.weighs = label_smoothing > 0 or positive_weights is not None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of :meth:`evaluate`."""
        return ("loss", "map", "f1")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, mean over images and labels."""
        return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))

    def objective(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The same with smoothed targets and the weights of present labels."""
        smooth = targets.to(outputs.dtype) * (1.0 - self.label_smoothing) + self.label_smoothing / 2
        weights = self.positive_weights
        if weights is not None:
            weights = self._on("positive_weights", weights, outputs.device)
        return F.binary_cross_entropy_with_logits(outputs, smooth, pos_weight=weights)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Sigmoid of each output: ``(B, classes)``, rows do not sum to 1."""
        return self._tempered(outputs.float()).sigmoid()

    def evaluate(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """``loss``, ``map`` (mean over labels of the average precision) and ``f1`` (macro, by the thresholds).

        Labels that no image of the split has are left out of ``map``; where there are no others it is NaN.
        """
        if not torch.isfinite(outputs).all():
            return dict.fromkeys(self.metric_names, math.nan)
        precision = areas(self.probabilities(outputs)[None], targets >= 1)[1]
        return {
            "loss": float(self.loss(self._tempered(outputs.float()), targets)),
            "map": float(precision.nanmean()),
            **self.training_summary(outputs, targets),
        }

    def per_class(self, outputs: Tensor, targets: Tensor) -> dict[str, list[float]]:
        """See :meth:`Task.per_class`."""
        predicted, present = self._given(outputs), targets >= 1
        return of_each_class((predicted & present).sum(dim=0), predicted.sum(dim=0), present.sum(dim=0))

    def training_summary(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Cheap metrics for the training split: ``f1``."""
        predicted, present = self._given(outputs), targets >= 1
        hits, seen = (predicted & present).sum(dim=0), predicted.sum(dim=0) + present.sum(dim=0)
        return {"f1": float((2 * hits / seen.clamp(min=1)).mean())}

    def label(self, probabilities: Sequence[float]) -> str:
        """All labels that are given, with ``|`` between."""
        given = zip(self.classes, probabilities, self.thresholds, strict=True)
        return "|".join(name for name, value, threshold in given if value >= threshold)

    def record(self) -> dict[str, Any]:
        """See :meth:`Task.record`."""
        return {**super().record(), "thresholds": list(self.thresholds)}

    def restore(self, record: Mapping[str, Any]) -> None:
        """See :meth:`Task.restore`."""
        super().restore(record)
        self.thresholds = tuple(float(value) for value in record.get("thresholds", self.thresholds))
        if len(self.thresholds) != self.outputs:
            raise ValueError(f"{len(self.thresholds)} thresholds for {self.outputs} labels")

    def _given(self, outputs: Tensor) -> Tensor:
        """Whether each label of each image is given."""
        return self.probabilities(outputs).double() >= torch.tensor(self.thresholds, dtype=torch.float64)
