"""Metrics of a model on images, and the same on images drawn again and again: what an interval over images needs."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from headstart.tasks import Task
from headstart.tasks.calibration import calibration_error

DRAWS = 1000
_LEVEL = 0.95


def measured(task: Task, outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Every metric of the task, and the calibration error of classes.

    Args:
        task: of the model.
        outputs: ``(N, outputs)``, before the activation.
        targets: ``(N,)`` class numbers or ``(N, columns)``.
    """
    values = task.evaluate(outputs, targets)
    if task.one_class:
        values["calibration_error"] = calibration_error(task.probabilities(outputs).numpy(), targets.numpy())
    return values


def resampled(
    task: Task, outputs: Tensor, targets: Tensor, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, np.ndarray]:
    """The same of as many images drawn with replacement, ``(draws,)`` by metric; two models see the same draws."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        places = torch.randint(len(targets), (len(targets),), generator=generator)
        found.append(measured(task, outputs[places], targets[places]))
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def percentiles(drawn: Iterable[float]) -> tuple[float, float]:
    """Ends of the 95 % interval of the draws in which the value is defined; NaN where it is in none."""
    defined = [one for one in drawn if math.isfinite(one)]
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) if defined else (math.nan, math.nan)
    return float(low), float(high)
