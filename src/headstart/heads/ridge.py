"""Ridge regression."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from headstart.heads.closed_form import Examples, Penalised, Spectrum, best_scale
from headstart.tasks.contract import Task


class Ridge(Penalised):
    """Least squares with an L2 penalty, solved exactly for all penalties from one decomposition, in float64.

    Minimises the sum of squared errors plus ``l2`` times the squared norm of the weights, biases left out
    (scikit-learn's ``alpha``). Regression fits the numbers in units of the training images' standard deviation,
    classification and labels a column of 0 and 1 for each. Such scores order the classes and are no logits: they are
    multiplied by the factor of the lowest loss over left-out images (each left out of the solution in turn, also in
    closed form). A label's is added to the logarithm of its odds among the training images. The probabilities are the
    softmax or sigmoid of that and are *not calibrated*.

    Reference: Hoerl and Kennard, "Ridge Regression", Technometrics 1970; left-out errors: Allen 1974 (PRESS).
    """

    tasks = ("binary", "multiclass", "multilabel", "regression")

    def solutions(self, examples: Examples, task: Task, values: Sequence[float | None]) -> Iterator[dict[str, Any]]:
        """From one decomposition; the note is ``scale`` for classes and labels."""
        spectrum, wanted = Spectrum.of(examples.features), self._columns(examples.targets, task)
        mean, count, labels = wanted.mean(dim=0), len(wanted), task.name == "multilabel"
        zero = torch.zeros_like(mean)
        towards = spectrum.scores.T @ (wanted - mean)
        for l2 in values:
            assert l2 is not None
            weight = (towards / (spectrum.power + l2)[:, None]).T
            notes: dict[str, Any] = {}
            bias = mean
            if task.name != "regression":
                # A label's score starts from how often it is present; among classes the scores themselves are compared.
                start, offset = (mean, mean.clamp(0.5 / count, 1 - 0.5 / count).logit()) if labels else (zero, zero)
                left_out = self._left_out(spectrum, wanted, weight, mean, l2) - start
                scored = left_out[:, 1:] - left_out[:, :1] if self.outputs == 1 and task.one_class else left_out
                scale = notes["scale"] = best_scale(scored, examples.targets, task, offset if labels else 0.0)
                weight, bias = weight * scale, (mean - start) * scale + offset
            self.put(*spectrum.layer(weight, bias))
            yield notes

    def _columns(self, targets: Tensor, task: Task) -> Tensor:
        """What is fitted, ``(N, columns)`` float64."""
        if task.name == "regression":
            record = task.record()
            mean, std = (torch.tensor(record[name], dtype=torch.float64, device=targets.device) for name in record)
            return (targets.double() - mean) / std
        return F.one_hot(targets.long(), len(task.classes)).double() if task.one_class else targets.double()

    @staticmethod
    def _left_out(spectrum: Spectrum, wanted: Tensor, weight: Tensor, mean: Tensor, l2: float) -> Tensor:
        """What the solution without an image says about it, for all images: ``y - (y - p) / (1 - h)``."""
        errors = wanted - (spectrum.scores @ weight.T + mean)
        leverage = (spectrum.scores.square() / (spectrum.power + l2)).sum(dim=1) + 1 / len(wanted)
        return wanted - errors / (1 - leverage).clamp(min=1e-9)[:, None]
