"""The statistics against SciPy, against independent slow versions, and on data where nothing is going on."""

import math

import numpy as np
import pytest
from scipy import stats

from headstart.study.statistics import (
    aggregate_differences,
    crossover,
    interquartile_mean,
    mean_interval,
    pareto_front,
    probability_of_improvement,
)


def sample(size: int, seed: int = 0, shift: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, size)


@pytest.mark.parametrize("size", [2, 3, 8, 30])
def test_mean_interval_is_scipys_t_interval(size: int) -> None:
    values = sample(size, seed=size)
    found = mean_interval(values)
    expected = stats.t.interval(0.95, size - 1, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.mean == pytest.approx(values.mean())
    assert found.n == size


def test_one_value_has_no_interval() -> None:
    found = mean_interval([0.7])
    assert (found.mean, found.low, found.high, found.n) == (0.7, None, None, 1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_statistics_refuse_nothing_and_nan(values: list[float]) -> None:
    with pytest.raises(ValueError, match="a statistic needs"):
        mean_interval(values)


@pytest.mark.parametrize("size", [1, 3, 4, 7, 24])
def test_interquartile_mean_is_scipys_trimmed_mean(size: int) -> None:
    values = sample(size, seed=size)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_probability_of_improvement_is_the_mean_of_mann_whitney_over_data_sets() -> None:
    first = [np.round(sample(6, seed=seed, shift=0.6), 1) for seed in range(3)]
    second = [np.round(sample(5, seed=10 + seed, shift=0.0), 1) for seed in range(3)]
    expected = np.mean([stats.mannwhitneyu(a, b).statistic / 30 for a, b in zip(first, second, strict=True)])
    assert probability_of_improvement(first, second) == pytest.approx(expected)
    assert probability_of_improvement(second, first) == pytest.approx(1 - expected)


def test_aggregate_of_several_data_sets() -> None:
    references = [sample(8, seed=seed) for seed in range(4)]
    treatments = [reference + 0.3 + 0.05 * sample(8, seed=20 + seed) for seed, reference in enumerate(references)]
    found = aggregate_differences(treatments, references, resamples=400)
    gaps = np.concatenate([a - b for a, b in zip(treatments, references, strict=True)])
    assert found.iqm == pytest.approx(stats.trim_mean(gaps, 0.25))
    assert found.iqm_low < found.iqm < found.iqm_high
    assert found.improvement_low <= found.improvement <= found.improvement_high
    assert (found.datasets, found.n) == (4, 32)


def test_pareto_front_is_what_nothing_dominates() -> None:
    generator = np.random.default_rng(0)
    costs, scores = generator.integers(1, 12, size=40), generator.integers(1, 12, size=40)

    def beaten(place: int) -> bool:
        return any(
            costs[other] <= costs[place]
            and scores[other] >= scores[place]
            and (costs[other] < costs[place] or scores[other] > scores[place])
            for other in range(40)
        )

    front = pareto_front(costs, scores)
    assert sorted(front) == [place for place in range(40) if not beaten(place)]
    assert list(costs[front]) == sorted(costs[front])


def test_crossover_is_found_on_a_logarithmic_scale() -> None:
    shots = [1, 4, 16]
    reference = np.tile([[0.5], [0.5], [0.5]], (1, 6))
    treatment = np.tile([[0.3], [0.4], [0.6]], (1, 6))
    found = crossover(shots, treatment, reference)
    assert found.point == pytest.approx(8.0)


def test_crossover_interval_widens_with_noise_and_opens_at_the_ends() -> None:
    shots = [2, 5, 10, 20]
    noise = np.random.default_rng(0).normal(size=(4, 8))
    noise -= noise.mean(axis=1, keepdims=True)
    reference = np.zeros((4, 8))
    gap = np.array([[-0.1], [-0.02], [0.03], [0.1]])
    calm, wild = crossover(shots, gap + 0.02 * noise, reference), crossover(shots, gap + 0.5 * noise, reference)
    assert calm.point is not None
    assert 5 < calm.low <= calm.point <= calm.high < 10
    assert wild.low == -math.inf
    assert wild.high == math.inf


def test_crossover_says_when_there_is_none() -> None:
    shots, zeros = [2, 5], np.zeros((2, 4))
    ahead, behind = crossover(shots, zeros + 1, zeros), crossover(shots, zeros - 1, zeros)
    assert (ahead.point, ahead.low, ahead.high) == (None, -math.inf, -math.inf)
    assert (behind.point, behind.low, behind.high) == (None, math.inf, math.inf)


def test_below_five_seeds_nothing_is_drawn_again_for_an_interval() -> None:
    rising, zeros = np.array([[-1.0] * 4, [1.0] * 4]), np.zeros((2, 4))
    found = crossover([1, 4], rising, zeros)
    assert found.point == pytest.approx(2.0)
    assert (found.low, found.high) == (-math.inf, math.inf)
    pairs = [np.arange(4.0), np.arange(6.0)]
    assert aggregate_differences(pairs, [pair - 1 for pair in pairs], resamples=50).iqm_low is None


def test_equal_seeds_say_no_more_than_one() -> None:
    curve, zeros = np.repeat([[-1.0], [1.0]], 8, axis=1), np.zeros((2, 8))
    found = crossover([1, 4], curve, zeros)
    assert found.point == pytest.approx(2.0)
    assert (found.low, found.high, found.n) == (-math.inf, math.inf, 1)
    random = np.random.default_rng(0)
    together = aggregate_differences([np.full(8, 0.9), random.normal(0.8, 0.1, 8)], [np.full(8, 0.7), np.full(8, 0.7)])
    assert (together.iqm_low, together.improvement_low, together.n) == (None, None, 9)
