"""The task contract: loss, activation and metrics of what is predicted.

A task sees whole splits of outputs, not batches, so scoring costs nothing while batches run, and a metric over a
split is exact however the split was divided.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from headstart.errors import ConfigError
from headstart.runs.result import higher_is_better
from headstart.system.names import suggestion


class Task(ABC):
    """What is predicted: the number of outputs, the loss, the activation and the metrics.

    Attributes:
        name: ``multiclass``, ``binary``, ``multilabel``, ``regression`` or ``segmentation``.
        classes: names, in the order of the columns of :meth:`probabilities`; of quantities for regression.
        outputs: what the head must have.
        monitor: the metric that chooses the checkpoint; :meth:`choose_by` takes another.
        one_class: every image is of exactly one of the classes.
        weighs: :meth:`objective` is another than :meth:`loss`.
        temperature: of classes and labels, what outputs are divided by to be as sure as they are right.
    """

    name: str
    outputs: int
    monitor: str = "val/acc"
    one_class: bool = True
    weighs: bool = False
    temperature: float = 1.0

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._held: dict[tuple[str, torch.device], Tensor] = {}

    @property
    def monitor_mode(self) -> Literal["min", "max"]:
        """Whether more (``max``) or less (``min``) of :attr:`monitor` is better."""
        return "max" if higher_is_better(self.monitor) else "min"

    def choose_by(self, monitor: str) -> None:
        """Let another metric of validation choose the checkpoint.

        Raises:
            ConfigError: it is none of :attr:`metric_names`.
        """
        logged = [f"val/{name}" for name in self.metric_names]
        if monitor not in logged:
            raise ConfigError(
                f"callbacks.checkpoint.monitor={monitor} is not logged with task={self.name}, which logs "
                f"{', '.join(logged)}{suggestion(monitor, logged)}"
            )
        self.monitor = monitor

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """Keys of :meth:`evaluate`."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Plain mean loss of ``(B, outputs)`` and ``(B,)`` class numbers or ``(B, classes)`` numbers; a scalar."""

    def objective(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What training minimises: :meth:`loss` with the weights and smoothing asked for, and of mixed targets too."""
        return self.loss(outputs, targets)

    @abstractmethod
    def probabilities(self, outputs: Tensor) -> Tensor:
        """``(B, outputs)`` to ``(B, classes)`` float32 as a person reads them; of regression, the predicted values."""

    @abstractmethod
    def evaluate(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Metrics of a whole split: ``(N, outputs)`` and its targets; NaN where they are not defined."""

    def evaluate_each(self, outputs: Tensor, targets: Tensor) -> list[dict[str, float]]:
        """:meth:`evaluate` of several models on one split: ``(models, N, outputs)`` and the split's targets."""
        return [self.evaluate(one, targets) for one in outputs]

    def hits(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """``(N,)`` bool, the images whose mean is ``acc``; None for a task without it."""
        return None

    def per_class(self, outputs: Tensor, targets: Tensor) -> dict[str, list[float]]:
        """``precision``, ``recall``, ``f1`` and ``support`` (images) of each class of a whole split, in their order.

        NaN where they are not defined; empty for a task without classes.
        """
        return {}

    @abstractmethod
    def training_summary(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Cheap metrics for the training split."""

    def training_metrics(
        self, outputs: Tensor, targets: Tensor, *, objective: float, differs: bool
    ) -> dict[str, float]:
        """``loss`` and the summary of the training images; beside them the ``objective``, where that is another.

        Args:
            outputs: of all training images, each from its own step.
            targets: hard ones.
            objective: mean of what was minimised.
            differs: it is not just the loss.
        """
        summary = self.training_summary(outputs, targets)
        if not differs:
            return {"loss": objective, **summary}
        return {"loss": float(self.loss(outputs.float(), targets)), "objective": objective, **summary}

    def label(self, probabilities: Sequence[float]) -> str:
        """The answer that a person reads off one row of :meth:`probabilities`: the most probable class."""
        return self.classes[max(range(len(probabilities)), key=probabilities.__getitem__)]

    def rows(self, outputs: Tensor, targets: Tensor, *, training: bool = False) -> tuple[Tensor, Tensor]:
        """What is kept of a batch until its split is whole, and what :meth:`evaluate` then gets: one row an image.

        As a rule the outputs and targets themselves; less where these are as large as the images.

        Args:
            outputs: of a batch.
            targets: of it.
            training: it is for :meth:`training_summary`.
        """
        return outputs, targets

    def kept(self, outputs: Tensor) -> dict[str, Tensor]:
        """What the predictions of a split hold beside probabilities, ``(N, ...)`` by name; as a rule nothing.

        Args:
            outputs: of the split, as :meth:`rows` keeps them.
        """
        return {}

    def record(self) -> dict[str, Any]:
        """What of it came from the data, in plain values; :func:`~headstart.tasks.build_task` takes it."""
        return {} if self.temperature == 1.0 else {"temperature": self.temperature}

    def restore(self, record: Mapping[str, Any]) -> None:
        """Take what :meth:`record` gave.

        Raises:
            ValueError: it is nothing that it gives.
        """
        self.temperature = float(record.get("temperature", 1.0))
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} is not above 0")

    def _tempered(self, outputs: Tensor) -> Tensor:
        return outputs if self.temperature == 1.0 else outputs / self.temperature

    def _on(self, name: str, tensor: Tensor, device: torch.device) -> Tensor:
        """``tensor`` on the device, copied there once."""
        if (name, device) not in self._held:
            self._held[name, device] = tensor.to(device)
        return self._held[name, device]
