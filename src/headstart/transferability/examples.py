"""Features with their classes, as every score takes them: checked, in float64, on one scale."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from headstart.errors import DataError
from headstart.heads.closed_form import Spectrum

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """What one network makes of images whose classes are known.

    Attributes:
        features: ``(N, D)`` float64, its largest number 1: no score here depends on the common scale.
        targets: ``(N,)``, the classes that occur, numbered from 0.
    """

    features: Array
    targets: NDArray[np.int64]

    @classmethod
    def of(cls, features: ArrayLike, targets: ArrayLike) -> "Labelled":
        """Checked; a class without an image is left out.

        Raises:
            DataError: the shapes do not fit, a number is not finite, or there are fewer than two classes.
        """
        values, given = np.asarray(features, dtype=np.float64), np.asarray(targets)
        if values.ndim != 2 or given.shape != values.shape[:1] or values.shape[1] == 0:
            raise DataError(f"features {values.shape} and targets {given.shape} must be (N, D) and (N,)")
        if not np.isfinite(values).all():
            raise DataError("the features hold NaN or infinity, so nothing can be said about them")
        present, positions = np.unique(given, return_inverse=True)
        if len(present) < 2:
            raise DataError(f"{len(present)} class(es) among {len(given)} images; a score needs at least two")
        largest = np.abs(values).max()
        # Divided in two steps, since the inverse of the smallest numbers is no number.
        scaled = values / largest if largest > 0 else values
        return cls(scaled, positions.astype(np.int64))

    def take(self, positions: NDArray[np.int64]) -> "Labelled":
        """Some of the images."""
        return Labelled.of(self.features[positions], self.targets[positions])

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def classes(self) -> int:
        """How many occur."""
        return int(self.targets.max()) + 1

    @cached_property
    def shares(self) -> Array:
        """One-hot targets ``(N, C)``."""
        return np.eye(self.classes)[self.targets]

    @cached_property
    def sizes(self) -> Array:
        """Images in each class ``(C,)``."""
        return self.shares.sum(axis=0)

    @cached_property
    def spectrum(self) -> Spectrum:
        """Centred features in the directions of their variance."""
        return Spectrum.of(torch.from_numpy(self.features))

    @property
    def scores(self) -> Array:
        """``(N, r)``: the centred features without the directions in which nothing varies; distances are kept."""
        return self.spectrum.scores.numpy()

    @property
    def power(self) -> Array:
        """``(r,)``: sums of the squared :attr:`scores`, largest first."""
        return self.spectrum.power.numpy()

    @cached_property
    def means(self) -> Array:
        """Class means ``(C, r)`` of :attr:`scores`."""
        means: Array = self.shares.T @ self.scores / self.sizes[:, None]
        return means


def folds_of(targets: NDArray[np.int64], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """A fold ``(N,)`` for each image: every class is spread over all folds as evenly as it goes."""
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    by_class = shuffled[np.argsort(targets[shuffled], kind="stable")]
    found = np.empty(len(targets), dtype=np.int64)
    found[by_class] = np.arange(len(targets)) % folds
    return found
