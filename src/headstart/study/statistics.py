"""The statistics of a study beside its paired comparisons: means, several data sets, fronts and crossings.

Everything takes arrays and gives numbers; nothing here knows about runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

FEWEST = 5
"""Of fewer values than this no interval is made by drawing them again: it would promise what it cannot know."""

_LEVEL = 0.95


@dataclass(frozen=True)
class MeanInterval:
    """A mean with Student's t interval; ``low`` and ``high`` are None for a single value."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Crossover:
    """Where one curve overtakes another.

    ``point`` is None when it does not. ``low`` is ``-inf`` when it may be ahead from the first position on, ``high``
    is ``inf`` when it may not overtake at all within the positions tried. With too few seeds both are open.
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
    sample = finite_sample(values)
    mean = float(sample.mean())
    if sample.size < 2:
        return MeanInterval(mean, None, None, sample.size)
    half = special.stdtrit(sample.size - 1, 0.5 + level / 2) * sample.std(ddof=1) / math.sqrt(sample.size)
    return MeanInterval(mean, mean - float(half), mean + float(half), sample.size)


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all values, a quarter trimmed at either end (rliable's ``aggregate_iqm``)."""
    sample = np.sort(finite_sample(values))
    cut = sample.size // 4
    return float(sample[cut : sample.size - cut].mean())


def probability_of_improvement(
    treatments: Sequence[ArrayLike], references: Sequence[ArrayLike], *, higher: bool = True
) -> float:
    """Mean over data sets of the chance that a run of the treatment beats a run of the reference, ties half.

    rliable's definition (Agarwal et al. 2021, section 4.3): all pairs of runs within a data set, then the mean.
    """
    chances = []
    for treatment, reference in zip(treatments, references, strict=True):
        gaps = np.subtract.outer(finite_sample(treatment), finite_sample(reference)) * (1 if higher else -1)
        chances.append(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
    return float(np.mean(chances))


@dataclass(frozen=True)
class Aggregate:
    """Several data sets in two numbers, each with its interval; None where a data set has too few seeds for one."""

    iqm: float
    iqm_low: float | None
    iqm_high: float | None
    improvement: float
    improvement_low: float | None
    improvement_high: float | None
    datasets: int
    n: int


def aggregate_differences(
    treatments: Sequence[ArrayLike],
    references: Sequence[ArrayLike],
    *,
    higher: bool = True,
    resamples: int = 1_000,
    seed: int = 0,
) -> Aggregate:
    """Interquartile mean of the paired differences, and probability of improvement, over several data sets.

    Intervals come from a stratified bootstrap: seeds are drawn again within each data set, a pair at a time.
    """
    pairs = [(finite_sample(a), finite_sample(b)) for a, b in zip(treatments, references, strict=True)]
    # Where nothing is random, many seeds say no more than one.
    pairs = [(a[:1], b[:1]) if (a == a[0]).all() and (b == b[0]).all() else (a, b) for a, b in pairs]
    generator, tails = np.random.default_rng(seed), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    draws = np.empty((resamples, 2))
    for position in range(resamples):
        drawn = [(a[chosen], b[chosen]) for a, b in pairs for chosen in [generator.integers(a.size, size=a.size)]]
        iqm = interquartile_mean(np.concatenate([a - b for a, b in drawn]))
        draws[position] = iqm, probability_of_improvement([a for a, _ in drawn], [b for _, b in drawn], higher=higher)
    enough = min(a.size for a, _ in pairs) >= FEWEST
    low, high = np.quantile(draws, tails, axis=0).tolist() if enough else ([None, None], [None, None])
    return Aggregate(
        iqm=interquartile_mean(np.concatenate([a - b for a, b in pairs])),
        iqm_low=low[0],
        iqm_high=high[0],
        improvement=probability_of_improvement([a for a, _ in pairs], [b for _, b in pairs], higher=higher),
        improvement_low=low[1],
        improvement_high=high[1],
        datasets=len(pairs),
        n=sum(a.size for a, _ in pairs),
    )


def pareto_front(costs: ArrayLike, scores: ArrayLike) -> list[int]:
    """Positions that no other beats: none is at least as cheap and as good, and better in one. Cheapest first."""
    cost, score = finite_sample(costs), finite_sample(scores)
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
    scale = np.log(finite_sample(positions))
    differences = np.asarray(treatment, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    if (differences == differences[:, :1]).all():  # where nothing is random, many seeds say no more than one
        differences = differences[:, :1]
    seeds = differences.shape[1]
    found = _overtakes(scale, differences.mean(axis=1))
    draws = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
    resampled = np.array([_overtakes(scale, curve) for curve in differences[:, draws].mean(axis=2).T])
    # "inverted_cdf" returns one of the values, so that infinities are never averaged.
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], method="inverted_cdf")
    if seeds < FEWEST:
        low, high = (-math.inf, math.inf) if math.isfinite(found) else (found, found)
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


def finite_sample(values: ArrayLike) -> Array:
    """Values as a flat array of at least one finite number."""
    sample = np.asarray(values, dtype=np.float64).ravel()
    if not sample.size:
        raise ValueError("a statistic needs at least one value, got none")
    if not np.isfinite(sample).all():
        raise ValueError("a statistic needs finite values, got NaN or infinity")
    return sample
