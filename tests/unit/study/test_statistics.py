"""The statistics against SciPy, against independent slow versions, and on data where nothing is going on."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from headstart.study.statistics import (
    EXACT_LIMIT,
    aggregate_differences,
    bootstrap_interval,
    crossover,
    expanded_level,
    holm,
    interquartile_mean,
    mean_interval,
    paired_difference,
    pareto_front,
    probability_of_improvement,
    sign_flip_test,
    smallest_p,
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
    assert bootstrap_interval([0.7]) is None


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_statistics_refuse_nothing_and_nan(values: list[float]) -> None:
    with pytest.raises(ValueError, match="a statistic needs"):
        mean_interval(values)


@pytest.mark.parametrize("size", [2, 5, 8, 11])
def test_exact_sign_flip_agrees_with_scipy(size: int) -> None:
    differences = sample(size, seed=size)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", alternative="two-sided", n_resamples=np.inf
    ).pvalue
    found = sign_flip_test(differences)
    assert found.exact
    assert found.p == pytest.approx(expected)


def test_exact_sign_flip_counts_ties_and_zeros_like_enumeration() -> None:
    differences = [0.1, 0.1, -0.1, 0.0, 0.3, 0.2]
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=6)
    ]
    expected = sum(total >= observed - 1e-12 for total in sums) / len(sums)
    assert sign_flip_test(differences).p == pytest.approx(expected)
    assert sign_flip_test([0.0] * 8).p == 1.0


@pytest.mark.parametrize("size", [1, 3, 5, 6, 8])
def test_smallest_p_is_reached_when_all_signs_agree(size: int) -> None:
    assert sign_flip_test(np.arange(1, size + 1)).p == pytest.approx(smallest_p(size)) == pytest.approx(2 / 2**size)


def test_three_seeds_can_never_be_significant_and_six_can() -> None:
    assert smallest_p(5) > 0.05 > smallest_p(6)


def test_monte_carlo_takes_over_and_stays_near_the_truth() -> None:
    differences = sample(EXACT_LIMIT, seed=3, shift=0.35)
    exact = sign_flip_test(differences)
    # A further difference of zero changes no sum, so the exact p-value stays.
    sampled = sign_flip_test([*differences, 0.0], draws=40_000)
    assert exact.exact
    assert not sampled.exact
    assert sampled.p == pytest.approx(exact.p, abs=4 * math.sqrt(exact.p * (1 - exact.p) / 40_000))
    assert sign_flip_test([*differences, 0.0], draws=5_000) == sign_flip_test([*differences, 0.0], draws=5_000)


def test_sign_flip_keeps_its_error_rate_on_null_data() -> None:
    generator, trials = np.random.default_rng(11), 3_000
    for draw in (generator.normal, generator.standard_cauchy):
        hits = sum(sign_flip_test(draw(size=7)).p < 0.05 for _ in range(trials))
        # Exact: at n=7 the largest attainable level below 0.05 is 6/128 = 0.047.
        assert hits / trials == pytest.approx(6 / 128, abs=4 * math.sqrt(0.047 * 0.953 / trials))


def test_holm_keeps_the_familywise_error_rate_on_null_data() -> None:
    generator, trials = np.random.default_rng(5), 1_500
    false = 0
    for _ in range(trials):
        p_values = [sign_flip_test(generator.normal(size=9)).p for _ in range(4)]
        false += min(holm(p_values)) < 0.05
    assert false / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
    assert false > 0


def test_bootstrap_is_scipys_percentile_bootstrap_at_the_expanded_level() -> None:
    values = sample(8, seed=2)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", confidence_level=expanded_level(8), n_resamples=40_000, rng=1
    ).confidence_interval
    found = bootstrap_interval(values, resamples=40_000)
    assert found == pytest.approx((expected.low, expected.high), abs=0.05)


def test_expanded_level_tends_to_the_nominal_one() -> None:
    assert 0.95 < expanded_level(100) < expanded_level(8) < expanded_level(4) < 1
    assert expanded_level(100_000) == pytest.approx(0.95, abs=1e-4)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    generator, trials = np.random.default_rng(7), 800
    covered = plain = 0
    for trial in range(trials):
        values = generator.normal(size=8)
        low, high = bootstrap_interval(values, resamples=1_000, seed=trial) or (0.0, 0.0)
        covered += low <= 0 <= high
        draws = values[generator.integers(8, size=(1_000, 8))].mean(axis=1)
        plain += np.quantile(draws, 0.025) <= 0 <= np.quantile(draws, 0.975)
    assert 0.92 < covered / trials < 0.97
    assert plain < covered


def test_paired_difference_uses_the_pairs() -> None:
    base = sample(10, seed=1) * 10
    found = paired_difference(base + 0.5, base)
    assert found.mean == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))
    assert found.p == pytest.approx(2 / 2**10)
    with pytest.raises(ValueError, match="differ in length: 10 and 9"):
        paired_difference(base, base[1:])


def test_holm_agrees_with_the_definition() -> None:
    p_values = [0.04, 0.001, 0.2, 0.012, 0.012]
    ordered = sorted(p_values)
    expected = {p: max(min(1, (len(ordered) - j) * ordered[j]) for j in range(ordered.index(p) + 1)) for p in ordered}
    assert holm(p_values) == pytest.approx([expected[p] for p in p_values])
    assert holm([]) == []


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
    assert (found.low, found.high) == pytest.approx((8.0, 8.0))


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
