"""What validation says of a chosen model's confidence: how far off it is, what mends it, and when to give no answer."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from torch import Tensor

from headstart.tasks.contract import Task

_BINS = 15
# Of the temperature: where every image is right, no temperature is low enough.
_BOUNDS = (0.05, 20.0)


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error in 15 equal bins (Guo et al. 2017, equation 3).

    Args:
        probabilities: ``(N, classes)``.
        targets: ``(N,)`` class numbers: of the most probable class; ``(N, classes)`` labels: of each probability.
    """
    if targets.ndim == 2:
        sure, true = probabilities.ravel(), targets.ravel() >= 1
    else:
        sure, true = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    places = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(places, weights=true, minlength=_BINS) - np.bincount(places, weights=sure, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(sure))


def best_temperature(task: Task, outputs: Tensor, targets: Tensor) -> float:
    """What to divide ``(N, outputs)`` by for the lowest loss (Guo et al. 2017, section 4.2), between 1/20 and 20."""

    def loss(exponent: float) -> float:
        return float(task.loss(outputs.double() / float(np.exp(exponent)), targets))

    found = minimize_scalar(loss, bounds=tuple(np.log(_BOUNDS)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def best_thresholds(probabilities: np.ndarray, targets: np.ndarray, usual: float) -> list[float]:
    """For each label the probability from which giving it has the best F1, in the middle between two images'.

    Of several with the same F1 the one nearest to the usual is taken, which a label without images keeps.

    Args:
        probabilities: ``(N, labels)``.
        targets: ``(N, labels)``.
        usual: threshold.
    """
    return [_best_threshold(*column, usual) for column in zip(probabilities.T, targets.T >= 1, strict=True)]


def _best_threshold(values: np.ndarray, present: np.ndarray, usual: float) -> float:
    if not present.any():
        return usual
    order = np.argsort(-values, kind="stable")
    high = values[order].astype(np.float64)
    low = np.append(high[1:], 0.0)
    scores = 2 * present[order].cumsum() / (np.arange(1, len(order) + 1) + present.sum())
    # Equal probabilities are given or not together.
    scores[high == low] = -1.0
    between = np.where((low < usual) & (usual <= high), usual, (low + high) / 2)
    best = between[scores >= scores.max() - 1e-12]
    return float(best[np.abs(best - usual).argmin()])


@dataclass(frozen=True)
class Abstention:
    """Giving no class where the most probable one is less probable than that.

    Attributes:
        least: the probability from which on a class is given.
        answered: share of the validation images that get one.
        error: share of wrong classes among these.
    """

    least: float
    answered: float
    error: float


def abstention(probabilities: np.ndarray, targets: np.ndarray, max_error: float) -> Abstention | None:
    """The one with most answers among those with at most this error, or None (Geifman and El-Yaniv, NIPS 2017).

    Args:
        probabilities: ``(N, classes)``.
        targets: ``(N,)`` class numbers.
        max_error: share of wrong classes among the images that get one.
    """
    sure, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != targets
    order = np.argsort(-sure, kind="stable")
    sure, errors = sure[order], np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    # All images that are as sure as one are answered with it.
    ends = np.append(sure[1:] < sure[:-1], True)
    good = np.flatnonzero(ends & (errors <= max_error))
    if not len(good):
        return None
    last = good[-1]
    return Abstention(float(sure[last]), float((last + 1) / len(order)), float(errors[last]))
