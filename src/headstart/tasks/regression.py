"""Every image has one or several numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from headstart.errors import ConfigError
from headstart.tasks.contract import Task


class Regression(Task):
    """Numbers: a linear output for each, mean squared error on targets standardised over the training split.

    Targets are ``(B, quantities)`` in their own units, and so are predictions and metrics; only the loss is in units
    of the training split's standard deviation.

    Args:
        classes: names of the quantities.
        train_targets: ``(N, quantities)``, whose mean and standard deviation scale the loss.
        record: of an earlier task, instead of ``train_targets``.

    Raises:
        ConfigError: neither is given.
    """

    name = "regression"
    monitor = "val/rmse"
    one_class = False

    def __init__(
        self,
        classes: Sequence[str],
        *,
        train_targets: np.ndarray | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes)
        self.outputs = len(self.classes)
        if record is not None:
            mean, std = np.asarray(record["mean"], dtype=np.float64), np.asarray(record["std"], dtype=np.float64)
        elif train_targets is not None:
            values = np.asarray(train_targets, dtype=np.float64).reshape(len(train_targets), -1)
            mean, std = values.mean(axis=0), values.std(axis=0)
            for name, value, spread in zip(self.classes, mean, np.ptp(values, axis=0), strict=False):
                if not spread > 0:
                    raise ConfigError(
                        f"{name} is {value:g} on every training image, so there is nothing to learn; leave it out of "
                        "datamodule.target_columns"
                    )
        else:
            raise ConfigError("task=regression needs the targets of the training split, to standardise them")
        if len(mean) != self.outputs:
            raise ConfigError(f"{len(mean)} columns of targets for {self.outputs} quantities {list(self.classes)}")
        self.mean, self.std = torch.from_numpy(mean), torch.from_numpy(std)
        if self.outputs > 1:
            self.monitor = "val/nrmse"

    def record(self) -> dict[str, Any]:
        """Mean and standard deviation of the training targets."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of :meth:`evaluate`."""
        each = tuple(f"{kind}_{name}" for name in self.classes for kind in ("mae", "rmse", "r2"))
        return ("loss", "mae", "rmse", "r2", *(("nrmse", *each) if len(self.classes) > 1 else ()))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error in units of the training targets' variance."""
        mean, std = self._scale(outputs.device)
        return F.mse_loss(outputs, ((targets - mean) / std).to(outputs.dtype))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The predicted values ``(B, quantities)`` in their own units, in 64 bits where the device has them."""
        mean, std = self._scale(outputs.device)
        return outputs * std + mean

    def evaluate(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """``loss``, and in the targets' own units ``mae``, ``rmse`` and ``r2``.

        With several quantities these are means over them, and each also has its own, such as ``rmse_age``; ``nrmse`` is
        the mean of their RMSE in units of the training targets' standard deviations, in which none outweighs the
        others by its scale. ``r2`` is the share of the split's variance that is explained (0: no better than its
        mean; NaN where all are equal).
        """
        if not torch.isfinite(outputs).all():
            return dict.fromkeys(self.metric_names, math.nan)
        errors = self.probabilities(outputs).double() - targets.double()
        squares, spread = errors.square(), (targets.double() - targets.double().mean(dim=0)).square().sum(dim=0)
        found = {
            "mae": errors.abs().mean(dim=0),
            "rmse": squares.mean(dim=0).sqrt(),
            "r2": torch.where(spread > 0, 1 - squares.sum(dim=0) / spread, torch.nan),
        }
        values = {"loss": float(self.loss(outputs.float(), targets))}
        values |= {kind: float(each.mean()) for kind, each in found.items()}
        if len(self.classes) > 1:
            values["nrmse"] = self._standardised(found["rmse"])
            for column, name in enumerate(self.classes):
                values |= {f"{kind}_{name}": float(each[column]) for kind, each in found.items()}
        return values

    def training_summary(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Cheap metrics for the training split: ``rmse``, of several quantities ``nrmse`` too."""
        errors = self.probabilities(outputs).double() - targets.double()
        each = errors.square().mean(dim=0).sqrt()
        return {"rmse": float(each.mean())} | ({"nrmse": self._standardised(each)} if self.outputs > 1 else {})

    def label(self, probabilities: Sequence[float]) -> str:
        """Nothing: the numbers are the answer."""
        return ""

    def _standardised(self, errors: Tensor) -> float:
        return float((errors.cpu() / self.std).mean())

    def _scale(self, device: torch.device) -> tuple[Tensor, Tensor]:
        # Differences of large numbers (times, counts) are lost in 32 bits; Apple's GPUs have no others.
        exact = torch.float32 if device.type == "mps" else torch.float64
        mean, std = self.mean.to(exact), self.std.to(exact)
        return self._on("mean", mean, device), self._on("std", std, device)
