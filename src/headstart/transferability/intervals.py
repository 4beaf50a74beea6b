"""How far a score would move with other images of the same kind."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from headstart.transferability.examples import Array, Labelled, folds_of

RESAMPLES = 1000
_LEVEL = 0.95
_QUANTILE = float(special.ndtri(0.5 + _LEVEL / 2))
# Subsamples of a score that is no mean over images, and how large they are at most.
_SUBSAMPLES = 16
_LARGEST = 512


@dataclass(frozen=True)
class Value:
    """A number with its 95 % interval.

    Attributes:
        value: of all images.
        low: None where nothing is known, ``high`` likewise.
        high: see ``low``.
    """

    value: float
    low: float | None = None
    high: float | None = None


def of_proportion(right: float, images: int) -> Value:
    """A share of right answers with Wilson's interval, which is no point where all are right.

    Args:
        right: the share.
        images: how many answers.

    Reference: Wilson 1927; Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion", 2001.
    """
    squared = _QUANTILE**2 / images
    centre = (right + squared / 2) / (1 + squared)
    half = math.sqrt(squared) * math.sqrt(right * (1 - right) + squared / 4) / (1 + squared)
    # Rounding errors must not put the share itself outside.
    return Value(right, max(0.0, min(right, centre - half)), min(1.0, max(right, centre + half)))


def draws(images: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Array:
    """How often each image is in each bootstrap sample, as shares ``(resamples, N)``; alike for every network."""
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(resamples))
    return np.stack(list(drawn)) / images


def of_mean(outcomes: Array, weights: Array) -> Value:
    """The mean over images with its percentile bootstrap interval.

    Args:
        outcomes: ``(N,)``.
        weights: of :func:`draws`.
    """
    low, high = np.quantile(weights @ outcomes, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Value(float(outcomes.mean()), float(low), float(high))


def of_whole(score: Callable[[Labelled], float], data: Labelled, *, seed: int = 0) -> Value:
    """A score that is no mean over images, with an interval from stratified subsamples without replacement.

    Images drawn twice, as the bootstrap does, would be read as certain knowledge by such scores. The spread over
    subsamples of ``m`` of ``N`` images times ``sqrt(m / (N - m))`` is the standard error.

    Reference: Shao and Wu, "A General Theory for Jackknife Variance Estimation", 1989 (the delete-d jackknife).

    Args:
        score: features and classes to a number.
        data: all images.
        seed: of the subsamples.
    """
    parts = max(2, math.ceil(len(data) / _LARGEST))
    found = []
    for number in range(_SUBSAMPLES):
        part = np.flatnonzero(folds_of(data.targets, parts, seed * _SUBSAMPLES + number) == 0)
        if len(np.unique(data.targets[part])) > 1:
            found.append(score(data.take(part)))
    value = score(data)
    if len(found) < 2:
        return Value(value)
    half = _QUANTILE * float(np.std(found, ddof=1)) / math.sqrt(parts - 1)
    return Value(value, value - half, value + half)
