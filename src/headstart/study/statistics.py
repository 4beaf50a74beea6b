"""The statistics of a study: intervals, paired tests and corrections for a handful of seeds.

Everything takes arrays and gives numbers; nothing here knows about runs. Where a method is a choice, it is the one
that keeps its stated error rate with few seeds, and the docstring says which it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

EXACT_LIMIT = 20
"""Up to this many differences every one of the 2^n sign assignments is counted; beyond it a seeded sample is."""

RESAMPLES = 10_000
MONTE_CARLO_DRAWS = 99_999
_LEVEL = 0.95


@dataclass(frozen=True)
class MeanInterval:
    """A mean with Student's t interval; ``low`` and ``high`` are None for a single value."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class SignFlip:
    """Outcome of the sign-flip test: two-sided p-value, whether it is exact, and the smallest p that n allows."""

    p: float
    exact: bool
    smallest: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean of paired differences with a bootstrap interval and the sign-flip p-value."""

    mean: float
    low: float | None
    high: float | None
    p: float
    exact: bool
    n: int


@dataclass(frozen=True)
class Crossover:
    """Where one curve overtakes another.

    ``point`` is None when it does not. ``low`` is ``-inf`` when it may be ahead from the first position on, ``high``
    is ``inf`` when it may not overtake at all within the positions tried.
    """

    point: float | None
    low: float
    high: float
    n: int


def mean_interval(values: ArrayLike, level: float = _LEVEL) -> MeanInterval:
    """Mean with Student's t interval, ``mean ± t(n-1) · s / √n``.

    Raises:
        ValueError: there is no value.
    """
    sample = _sample(values)
    mean = float(sample.mean())
    if sample.size < 2:
        return MeanInterval(mean, None, None, sample.size)
    half = special.stdtrit(sample.size - 1, 0.5 + level / 2) * sample.std(ddof=1) / math.sqrt(sample.size)
    return MeanInterval(mean, mean - float(half), mean + float(half), sample.size)


def expanded_level(n: int, level: float = _LEVEL) -> float:
    """The nominal level at which a percentile bootstrap of ``n`` values covers the mean about ``level`` of the time.

    The plain percentile interval is too narrow for small n, by ``√((n-1)/n)`` and by using normal instead of t
    quantiles; Hesterberg (2015), "What teachers should know about the bootstrap", section 4.4, undoes both.
    """
    quantile = math.sqrt(n / (n - 1)) * special.stdtrit(n - 1, 0.5 + level / 2)
    return float(1 - 2 * special.ndtr(-quantile))


def bootstrap_interval(
    values: ArrayLike, level: float = _LEVEL, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """Expanded percentile bootstrap interval of the mean (Hesterberg 2015); None below two values.

    With three or four values it is close to the range of the data: no interval can know more from so few.
    """
    sample = _sample(values)
    if sample.size < 2:
        return None
    draws = np.random.default_rng(seed).integers(sample.size, size=(resamples, sample.size))
    tail = (1 - expanded_level(sample.size, level)) / 2
    low, high = np.quantile(sample[draws].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def smallest_p(n: int) -> float:
    """The smallest two-sided p-value that the sign-flip test of ``n`` differences can reach: ``2 / 2^n``."""
    return min(1.0, 2.0 ** (1 - n))


def sign_flip_test(differences: ArrayLike, *, seed: int = 0, draws: int = MONTE_CARLO_DRAWS) -> SignFlip:
    """Paired permutation test: how often does a random choice of signs give a mean as far from zero?

    Under the null hypothesis a pair's two runs are exchangeable, so that each difference is as likely with the
    opposite sign. Two-sided. Exact up to ``EXACT_LIMIT`` differences, beyond that ``(1 + hits) / (1 + draws)``.
    """
    sample = _sample(differences)
    observed, tolerance = abs(sample.sum()), 1e-9 * np.abs(sample).sum()
    if sample.size <= EXACT_LIMIT:
        sums = np.zeros(1)
        for value in sample[1:]:
            sums = np.concatenate([sums + value, sums - value])
        # The first sign is fixed: flipping all signs leaves the absolute sum as it is.
        p = float(np.mean(np.abs(sums + sample[0]) >= observed - tolerance))
        return SignFlip(p, True, smallest_p(sample.size))
    generator, hits, left = np.random.default_rng(seed), 0, draws
    while left:
        count = min(left, 10_000)
        signs = generator.integers(0, 2, size=(count, sample.size)) * 2 - 1
        hits += int(np.sum(np.abs(signs @ sample) >= observed - tolerance))
        left -= count
    return SignFlip((1 + hits) / (1 + draws), False, max(smallest_p(sample.size), 1 / (1 + draws)))


def paired_difference(treatment: ArrayLike, reference: ArrayLike, *, seed: int = 0) -> PairedDifference:
    """Compare two samples whose i-th values belong together (same seed, same everything else).

    Raises:
        ValueError: the samples are empty or differ in length.
    """
    first, second = _sample(treatment), _sample(reference)
    if first.size != second.size:
        raise ValueError(f"paired samples differ in length: {first.size} and {second.size}")
    differences = first - second
    test, interval = sign_flip_test(differences, seed=seed), bootstrap_interval(differences, seed=seed)
    low, high = interval if interval else (None, None)
    return PairedDifference(float(differences.mean()), low, high, test.p, test.exact, first.size)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = running
    return adjusted


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all values, a quarter trimmed at either end (rliable's ``aggregate_iqm``)."""
    sample = np.sort(_sample(values))
    cut = sample.size // 4
    return float(sample[cut : sample.size - cut].mean())


def probability_of_improvement(treatments: Sequence[ArrayLike], references: Sequence[ArrayLike]) -> float:
    """Mean over data sets of the chance that a run of the treatment beats a run of the reference, ties half.

    rliable's definition (Agarwal et al. 2021, section 4.3): all pairs of runs within a data set, then the mean.
    """
    chances = []
    for treatment, reference in zip(treatments, references, strict=True):
        gaps = np.subtract.outer(_sample(treatment), _sample(reference))
        chances.append(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
    return float(np.mean(chances))


@dataclass(frozen=True)
class Aggregate:
    """Several data sets in two numbers, each with its stratified percentile bootstrap interval."""

    iqm: float
    iqm_low: float
    iqm_high: float
    improvement: float
    improvement_low: float
    improvement_high: float
    datasets: int
    n: int


def aggregate_differences(
    treatments: Sequence[ArrayLike], references: Sequence[ArrayLike], *, resamples: int = 1_000, seed: int = 0
) -> Aggregate:
    """Interquartile mean of the paired differences, and probability of improvement, over several data sets.

    Intervals come from a stratified bootstrap: seeds are drawn again within each data set, a pair at a time.
    """
    pairs = [(_sample(a), _sample(b)) for a, b in zip(treatments, references, strict=True)]
    generator = np.random.default_rng(seed)
    iqms, chances = np.empty(resamples), np.empty(resamples)
    for position in range(resamples):
        drawn = [(a[chosen], b[chosen]) for a, b in pairs for chosen in [generator.integers(a.size, size=a.size)]]
        iqms[position] = interquartile_mean(np.concatenate([a - b for a, b in drawn]))
        chances[position] = probability_of_improvement([a for a, _ in drawn], [b for _, b in drawn])
    tails = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    (iqm_low, iqm_high), (low, high) = np.quantile(iqms, tails), np.quantile(chances, tails)
    return Aggregate(
        iqm=interquartile_mean(np.concatenate([a - b for a, b in pairs])),
        iqm_low=float(iqm_low),
        iqm_high=float(iqm_high),
        improvement=probability_of_improvement([a for a, _ in pairs], [b for _, b in pairs]),
        improvement_low=float(low),
        improvement_high=float(high),
        datasets=len(pairs),
        n=sum(a.size for a, _ in pairs),
    )


def pareto_front(costs: ArrayLike, scores: ArrayLike) -> list[int]:
    """Positions that no other beats: none is at least as cheap and as good, and better in one. Cheapest first."""
    cost, score = _sample(costs), _sample(scores)
    front: list[int] = []
    for position in np.lexsort((-score, cost)):
        best = score[front[-1]] if front else -math.inf
        if score[position] > best or (front and cost[position] == cost[front[-1]] and score[position] == best):
            front.append(int(position))
    return front


def crossover(
    positions: ArrayLike, treatment: ArrayLike, reference: ArrayLike, *, resamples: int = 4_000, seed: int = 0
) -> Crossover:
    """Where the treatment overtakes the reference as the position (shots) grows.

    The zero of the mean difference is interpolated on a logarithmic scale; with several, the last one counts, from
    which on the treatment stays ahead. The interval draws the seeds again, each with its whole curve.

    Args:
        positions: ``(P,)`` increasing and positive.
        treatment: ``(P, S)``, one column per seed.
        reference: ``(P, S)``, paired with the treatment.
        resamples: of the seeds.
        seed: of the resampling.
    """
    scale = np.log(_sample(positions))
    differences = np.asarray(treatment, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    seeds = differences.shape[1]
    found = _overtakes(scale, differences.mean(axis=1))
    draws = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
    resampled = np.array([_overtakes(scale, curve) for curve in differences[:, draws].mean(axis=2).T])
    # "inverted_cdf" returns one of the values, so that infinities are never averaged.
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], method="inverted_cdf")
    point = float(np.exp(found)) if math.isfinite(found) else None
    return Crossover(point, _exponential(low), _exponential(high), seeds)


def _overtakes(scale: Array, curve: Array) -> float:
    if curve[-1] <= 0:
        return math.inf
    behind = np.flatnonzero(curve <= 0)
    if not behind.size:
        return -math.inf
    last = int(behind[-1])
    share = -curve[last] / (curve[last + 1] - curve[last])
    return float(scale[last] + share * (scale[last + 1] - scale[last]))


def _exponential(value: float) -> float:
    return float(np.exp(value)) if math.isfinite(value) else float(value)


def _sample(values: ArrayLike) -> Array:
    sample = np.asarray(values, dtype=np.float64).ravel()
    if not sample.size:
        raise ValueError("a statistic needs at least one value, got none")
    if not np.isfinite(sample).all():
        raise ValueError("a statistic needs finite values, got NaN or infinity")
    return sample
