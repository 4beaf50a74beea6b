"""What more images would bring: a learning curve of a linear probe, and where it leads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from headstart.transferability.examples import Array, Labelled, folds_of
from headstart.transferability.intervals import Value
from headstart.transferability.scores_probe import solve_ridge

DRAWS = 5
_SHARES = (0.125, 0.25, 0.5, 1.0)
_LEAST_IMAGES = 8
# Exponents of a power law; learning curves of classifiers lie between these.
_EXPONENTS = np.linspace(0.1, 1.0, 19)
_RESAMPLES = 500


@dataclass(frozen=True)
class LearningCurve:
    """Errors of a linear probe by the number of training images.

    Attributes:
        images: ``(S,)``, increasing.
        errors: ``(S, draws)``, on images that the probe has not seen.
        judged: how many those are.
    """

    images: tuple[int, ...]
    errors: Array
    judged: int

    @property
    def spread(self) -> float:
        """Standard deviation of the error between draws of training images, that of the judging images taken out."""
        last = self.errors[-1]
        sampling = last.mean() * (1 - last.mean()) / self.judged
        return float(np.sqrt(max(0.0, last.var(ddof=1) - sampling)))

    def at(self, images: float, *, seed: int = 0) -> Value:
        """The error expected with so many images, from ``floor + factor * n^-exponent``, with a 95 % interval.

        The interval covers the draws of images, not that another law might hold beyond what was seen.

        Reference: Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017, section 2.

        Args:
            images: how many.
            seed: of the bootstrap over draws.
        """
        point, rng = _predicted(self.images, self.errors.mean(axis=1), images), np.random.default_rng(seed)
        picks = rng.integers(self.errors.shape[1], size=(_RESAMPLES, self.errors.shape[1]))
        found = [_predicted(self.images, self.errors[:, pick].mean(axis=1), images) for pick in picks]
        low, high = np.quantile(found, [0.025, 0.975])
        return Value(point, min(point, float(low)), max(point, float(high)))


def learning_curve(data: Labelled, *, draws: int = DRAWS, seed: int = 0) -> LearningCurve | None:
    """Errors of ridge regression trained on growing shares of the images, judged on a fifth that it never sees.

    Args:
        data: features and classes.
        draws: splits, each with its own subsets.
        seed: of the splits.

    Returns: None where there are too few images for at least three points.
    """
    smallest = max(_LEAST_IMAGES, 2 * data.classes)
    shares = [share for share in _SHARES if share * 0.8 * len(data) >= smallest]
    if len(shares) < 3:
        return None
    images: list[int] = []
    errors = np.empty((len(shares), draws))
    for draw in range(draws):
        out = folds_of(data.targets, 5, seed + draw) == 0
        rest = np.flatnonzero(~out)
        for place, share in enumerate(shares):
            parts = round(1 / share)
            chosen = rest[folds_of(data.targets[rest], parts, seed + draw) == 0] if parts > 1 else rest
            errors[place, draw] = _error(data, chosen, np.flatnonzero(out))
            if draw == 0:
                images.append(len(chosen))
    return LearningCurve(tuple(images), errors, len(data) // 5)


def _error(data: Labelled, train: np.ndarray, out: np.ndarray) -> float:
    """Share of wrong answers on ``out`` of ridge regression from ``train``."""
    present, numbered = np.unique(data.targets[train], return_inverse=True)
    seen = Labelled(data.features[train], numbered.astype(np.int64))
    said = solve_ridge(seen).says(data.features[out], seen)
    return float((present[said.argmax(axis=1)] != data.targets[out]).mean())


def _predicted(images: Sequence[int], errors: Array, wanted: float) -> float:
    """Least squares over the exponents, with floor and factor at least 0."""
    counts, best = np.asarray(images, dtype=float), (np.inf, float(errors[-1]))
    for exponent in _EXPONENTS:
        basis = np.stack([np.ones_like(counts), counts**-exponent], axis=1)
        (floor, factor), residual = nnls(basis, errors)
        best = min(best, (residual, float(floor + factor * wanted**-exponent)))
    return best[1]
