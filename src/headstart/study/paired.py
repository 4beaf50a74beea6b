"""Paired differences with everything that varied in their error: seeds, test images, splits and drawn images.

Arrays in, numbers out; nothing here knows about runs. A p-value and the interval beside it come from one standard error
and one t distribution, so they never contradict each other. Bouthillier et al. (2021), "Accounting for variance in
machine learning benchmarks", says why seeds alone are not enough.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from headstart.study.statistics import FEWEST, finite_sample

Array = NDArray[np.float64]

ALPHA = 0.05
_POWER = 0.8
_ROUNDED = 1e-9
_TAUGHT = 2.0
"""What images do to a comparison for being trained on, in units of what they do for being tested on."""


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences, what it is uncertain by, and what that makes of it among its comparisons.

    Attributes:
        mean: of the differences.
        n: seeds or splits that it is a mean of.
        error: standard error of the mean.
        repeats: variance of the mean that falls as there are more seeds, splits or draws.
        lasting: variance of the mean that none of them lessens: of the images, and of what splits have in common.
        df: degrees of freedom of the standard error.
        factor: by how much the correction multiplies this p-value; 1 for a comparison on its own.
        p: two-sided, after that; None where no error is known.
        exact: nothing is random in either arm, so that one run each is enough.
    """

    mean: float
    n: int
    error: float | None
    repeats: float
    lasting: float
    df: float
    factor: float = 1.0
    p: float | None = None
    exact: bool = False

    @property
    def low(self) -> float | None:
        """Lower end of the 95 % interval, as wide as the correction for several comparisons makes it."""
        return None if (half := self._half()) is None else self.mean - half

    @property
    def high(self) -> float | None:
        """Its upper end."""
        return None if (half := self._half()) is None else self.mean + half

    @property
    def few(self) -> bool:
        """There are too few repetitions for a verdict."""
        return self.n < FEWEST and not self.exact

    @property
    def significant(self) -> bool:
        """The difference is larger than all that varied explains."""
        return self.p is not None and self.p < ALPHA and not self.few

    def detectable(self) -> float | None:
        """The difference that such a study would have found in four cases of five (two-sided, corrected)."""
        if self.error is None:
            return None
        quantiles = special.stdtrit(self.df, 1 - ALPHA / 2 / self.factor) + special.stdtrit(self.df, _POWER)
        return float(quantiles * self.error)

    def needed(self, difference: float) -> int | None:
        """How many repetitions would find ``difference`` in four cases of five; None if no number of them would."""
        reach = special.ndtri(1 - ALPHA / 2 / self.factor) + special.ndtri(_POWER)
        left = (difference / reach) ** 2 - self.lasting
        return None if left <= 0 else max(FEWEST, math.ceil(self.repeats * self.n / left))

    def among(self, comparisons: int) -> "Paired":
        """One of so many that are read together, by Bonferroni's bound."""
        p = None if self.p is None else min(1.0, comparisons * self.p)
        return replace(self, factor=float(comparisons), p=p)

    def reversed(self) -> "Paired":
        """The reference minus the treatment."""
        return replace(self, mean=-self.mean)

    def _half(self) -> float | None:
        if self.error is None or (self.n < FEWEST and not self.exact):
            return None
        return float(special.stdtrit(self.df, 1 - ALPHA / 2 / self.factor) * self.error)


def paired_difference(
    treatment: ArrayLike,
    reference: ArrayLike,
    *,
    images: ArrayLike | None = None,
    step: float = 0.0,
    shared: float = 1.0,
    drawn: float = 0.0,
    overlap: float = 0.0,
    exact: bool = False,
) -> Paired:
    """Compare two samples whose i-th values belong together (same seed, same split, same everything else).

    - Without images: Student's t on the differences, ``s²/n``.
    - With images that all repetitions share: the two-way layout of repetitions and images, both random; the variance
      of the mean is ``s²_repeats/n + s²_images/N`` less the interaction that both count, with Satterthwaite's degrees
      of freedom (Searle, Casella & McCulloch 1992, *Variance Components*, chapter 4).
    - With ``shared`` below 1: each repetition has test images of its own and training images drawn anew. ``s²/n``
      counts both already; what is added is the covariance of two repetitions, ``(1 - 1/n)`` times what they have in
      common: ``shared`` of the variance from images, ``s²_images/N``, and ``drawn`` of the rest.
      ``drawn`` does the same where all repetitions have the same test images.
    - With ``overlap``: each repetition tests a part of one pool and trains on most of the rest. ``s²/n`` lacks what the
      repetitions have in common, which is the pool. What its images do as test images is measured, as the covariance of
      two repetitions on the images that both tested; as training images they are taken to do twice as much again, more
      than was seen of learners on real images (experiments/verdict). Where no image was tested twice or images are not
      known: the resampled t-test of Nadeau & Bengio (2003), section 3, ``(1/n + overlap/(1 - overlap)) s²``.

    Args:
        treatment: ``(n,)`` one score for each seed, or the mean over the seeds of each split.
        reference: ``(n,)``.
        images: ``(n, N)`` difference image by image; NaN where a repetition has not seen that image.
        step: what one image can change, in units of one image: 1 for accuracy. It enters as one more image on which
            the arms disagree, as in Agresti & Min (2005), for tests with few disagreements.
        shared: the share of the test images that two repetitions have in common.
        drawn: the share of the training images that two repetitions have in common.
        overlap: the share of the pool that is tested on, where training takes (nearly) all the rest.
        exact: nothing in either arm is random, and there is one split: images alone decide.

    Raises:
        ValueError: the samples are empty or differ in length.
    """
    first, second = finite_sample(treatment), finite_sample(reference)
    if first.size != second.size:
        raise ValueError(f"paired samples differ in length: {first.size} and {second.size}")
    differences = first - second
    mean, n = float(differences.mean()), differences.size
    spread = float(differences.var(ddof=1)) / n if n > 1 else 0.0
    grid = None if images is None else np.asarray(images, dtype=np.float64)
    if overlap and grid is not None and (np.isfinite(grid).sum(axis=0) > 1).any():
        return _tested(_splits_of_one_pool(mean, spread, grid, step, overlap))
    if grid is None or overlap:
        lasting = n * spread * overlap / (1 - overlap)
        error = math.sqrt(spread + lasting) if n > 1 else None
        return _tested(Paired(mean, n, error, spread, lasting, max(n - 1, 1), exact=exact))
    if shared < 1:
        own, count = _own_images(grid, step)
        # The spread of the repetitions lacks what they have in common, so that it is (1 - drawn) of the rest.
        rest = max(n * spread - (1 - shared) * own, 0.0) / (1 - drawn)
        taught, seen = drawn * rest, shared * own
        error = math.sqrt(spread + (1 - 1 / n) * (taught + seen))
        df = _satterthwaite([(spread + (1 - 1 / n) * taught, n - 1), ((1 - 1 / n) * seen, count - 1)])
        repeats = max(spread - (taught + seen) / n, 0.0)
        return _tested(Paired(mean, n, error, repeats, taught + seen, df))
    taught = n * spread * drawn / (1 - drawn)
    from_images, both, count, free = _crossed(grid, step)
    total = spread + taught + from_images - both
    parts: list[tuple[float, float]] = [(spread + taught, n - 1), (from_images, count - 1), (both, free)]
    if total < max(spread + taught, from_images):  # an interaction that is larger than it can be is noise
        total, parts = max((spread + taught, parts[:1]), (from_images, parts[1:2]), key=lambda pair: pair[0])
    error = math.sqrt(total) if n > 1 or exact else None
    return _tested(Paired(mean, n, error, spread, max(total - spread, 0.0), _satterthwaite(parts), exact=exact))


def corrected(items: Sequence[Paired], first: Sequence[bool] = ()) -> list[Paired]:
    """Comparisons that are read together, by Holm's step-down method (Holm 1979), in the order given.

    Each gets the factor that its p-value is multiplied by, and with it the level of its interval, so that the interval
    leaves out zero exactly where the corrected p-value is below 0.05. Those that ``first`` marks, declared before
    looking, have half of the error rate for themselves (Holm's weights, section 4 there).
    """
    apart = sum(first)
    weights = [
        (len(items) - apart) / apart if yes and apart < len(items) else 1.0 for yes in first or [False] * len(items)
    ]
    known = [place for place, item in enumerate(items) if item.p is not None]
    known.sort(key=lambda place: (items[place].p or 0.0) / weights[place])
    found, running, left = list(items), 0.0, sum(weights[place] for place in known)
    for place in known:
        p = items[place].p or 0.0
        running = max(running, left * p / weights[place])
        factor = running / p if p > 0 else left / weights[place]
        found[place] = replace(items[place], p=min(1.0, running), factor=factor)
        left -= weights[place]
    return found


def candidates(pairs: Sequence[Sequence[Paired | None]]) -> list[int]:
    """Positions that cannot be told from the best: Hsu's (1984) multiple comparisons with the best.

    An arm is left out when another is significantly better. The best one is among those that stay with 95 % confidence
    if each comparison is corrected for as many as there are rivals (Bonferroni's or Holm's bound in place of Dunnett's,
    as the errors are paired and unequal). ``pairs[i][j]`` is arm i minus arm j; higher scores are better.
    """
    arms = range(len(pairs))
    beaten = {place for rivals in pairs for place, by in enumerate(rivals) if by and by.significant and by.mean > 0}
    return [place for place in arms if place not in beaten]


def _tested(item: Paired) -> Paired:
    if item.error is None:
        return item
    if item.error <= _ROUNDED * abs(item.mean) or item.mean == item.error == 0.0:
        # Equal differences can say no more than their number, and have no interval.
        return replace(item, error=None, p=1.0 if item.mean == 0.0 else 2.0 ** (1 - item.n))
    return replace(item, p=float(2 * special.stdtr(item.df, -abs(item.mean) / item.error)))


def _crossed(grid: Array, step: float) -> tuple[float, float, int, float]:
    """Variance of the mean from images; from images and repetitions together; number of images; degrees of freedom."""
    seen = np.isfinite(grid)
    n, sizes = len(grid), seen.sum(axis=1, keepdims=True)
    gaps = np.where(seen, grid - np.nanmean(grid, axis=1, keepdims=True), 0.0)
    count = int(seen.any(axis=0).sum())
    per_image = (gaps / (n * sizes)).sum(axis=0)
    images = float(np.sum(per_image**2)) * count / max(count - 1, 1) + (step / float(sizes.mean())) ** 2
    effect = gaps.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    rest = np.where(seen, gaps - effect, 0.0)
    free = float(seen.sum() - n - count + 1)
    both = float(np.sum(rest**2)) / free * float(np.sum(1 / (n**2 * sizes))) if free > 0 else 0.0
    return images, both, count, free


def _splits_of_one_pool(mean: float, spread: float, grid: Array, step: float, overlap: float) -> Paired:
    n, (pool, noise), (own, count) = len(grid), _pool(grid), _own_images(grid, 0.0)
    # A spread that is smaller than what the test images of a split alone explain is chance.
    spread, df = max((spread, n - 1.0), ((own - pool) / n, n * (count - 1.0)))
    lasting = (1 + _TAUGHT) * pool + overlap * (step / count) ** 2
    # Satterthwaite's, where the estimate of the pool has a variance of its own instead of degrees of freedom.
    below = spread**2 / df + (1 + _TAUGHT) ** 2 * noise / 2
    df = max(1.0, (spread + lasting) ** 2 / below) if below > 0 else df
    return Paired(mean, n, math.sqrt(spread + lasting), spread, lasting, df)


def _pool(grid: Array) -> tuple[float, float]:
    """Covariance of two repetitions' means from the images that both have seen, and the variance of that estimate."""
    seen = np.isfinite(grid)
    n, sizes = len(grid), seen.sum(axis=1, keepdims=True)
    parts = np.where(seen, grid - np.nanmean(grid, axis=1, keepdims=True), 0.0) / sizes
    products = (parts.sum(axis=0) ** 2 - (parts**2).sum(axis=0)) / (n * (n - 1))
    return max(float(products.sum()), 0.0), float(products.var()) * grid.shape[1]


def _own_images(grid: Array, step: float) -> tuple[float, int]:
    """Variance of one repetition's mean from its images, averaged over the repetitions, and the images of one."""
    seen = np.isfinite(grid)
    sizes = seen.sum(axis=1)
    variances = np.nanvar(grid, axis=1, ddof=1) / sizes + (step / sizes) ** 2
    return float(variances.mean()), int(sizes.mean())


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of variances (Satterthwaite 1946); the last of three is subtracted."""
    signs = (1.0, 1.0, -1.0)
    total = sum(sign * part for sign, (part, _) in zip(signs, parts, strict=False))
    below = sum(part**2 / df for part, df in parts if df > 0)
    return max(1.0, total**2 / below) if below > 0 else max(1.0, parts[0][1])
