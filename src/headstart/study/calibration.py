"""Does a model that says 90 % get it right nine times in ten? Expected calibration error and its bins."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error, and per bin of confidence (empty bins left out) what was said and what was true.

    Attributes:
        error: the mean gap between confidence and accuracy, weighted by the images in each bin, from 0 to 1.
        confidence: mean confidence of each bin, ``(B,)``.
        accuracy: share of right answers in each bin, ``(B,)``.
        count: images in each bin, ``(B,)``.
    """

    error: float
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def calibration(probabilities: ArrayLike, targets: ArrayLike, bins: int = BINS) -> Calibration:
    """Compare the top class's probability with how often it is right (Guo et al. 2017, equation 3).

    Bins have equal width and hold ``low < confidence <= high``.

    Args:
        probabilities: ``(N, C)``; a single column is the probability of class 1.
        targets: ``(N,)`` class positions.
        bins: how many.
    """
    chances, truth = two_columns(probabilities), np.asarray(targets)
    top = chances.max(axis=1)
    right = chances.argmax(axis=1) == truth
    places = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    used = count > 0
    confidence = np.bincount(places, weights=top, minlength=bins)[used] / count[used]
    accuracy = np.bincount(places, weights=right, minlength=bins)[used] / count[used]
    error = float(np.sum(count[used] / len(truth) * np.abs(confidence - accuracy)))
    return Calibration(error, confidence, accuracy, count[used])


def two_columns(probabilities: ArrayLike) -> np.ndarray:
    """Probabilities with one column per class: a binary task's single column gains its complement."""
    chances = np.asarray(probabilities, dtype=np.float64)
    return np.hstack([1 - chances, chances]) if chances.shape[1] == 1 else chances
