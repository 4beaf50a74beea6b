"""Paired comparisons: against SciPy and slow versions, and what each source of variation adds."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from headstart.study.paired import ALPHA, Paired, candidates, corrected, paired_difference


def sample(size: int, seed: int = 0, shift: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, size)


@pytest.mark.parametrize("size", [5, 8, 30])
def test_seeds_alone_are_scipys_paired_t_test(size: int) -> None:
    first, second = sample(size, seed=1, shift=1.0), sample(size, seed=2)
    found, expected = paired_difference(first, second), stats.ttest_rel(first, second)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_eight_seeds_that_agree_on_one_image_are_no_proof() -> None:
    # One image of 150 more, in each of eight seeds: over seeds alone this is as certain as eight seeds can be.
    grid = np.zeros((8, 150))
    grid[:, 7] = 1.0
    seeds_only = paired_difference(grid.mean(axis=1), np.zeros(8))
    found = paired_difference(grid.mean(axis=1), np.zeros(8), images=grid, step=1.0)
    assert seeds_only.significant
    assert not found.significant
    assert found.p is not None
    assert found.p > 0.3


def test_images_enter_as_the_two_way_layout_says() -> None:
    random, n, count = np.random.default_rng(3), 12, 40
    grid = 0.3 * random.normal(size=(n, 1)) + 0.8 * random.normal(size=count) + random.normal(size=(n, count))
    found = paired_difference(grid.mean(axis=1), np.zeros(n), images=grid)
    rest = grid - grid.mean(axis=0) - grid.mean(axis=1, keepdims=True) + grid.mean()
    repeats = count * grid.mean(axis=1).var(ddof=1)
    images, both = n * grid.mean(axis=0).var(ddof=1), (rest**2).sum() / ((n - 1) * (count - 1))
    assert found.error is not None
    assert found.error**2 == pytest.approx((repeats + images - both) / (n * count))
    df = (repeats + images - both) ** 2 / (
        repeats**2 / (n - 1) + images**2 / (count - 1) + both**2 / ((n - 1) * (count - 1))
    )
    assert found.df == pytest.approx(df)


def test_images_that_only_some_repetitions_have_seen_count_where_they_were_seen() -> None:
    random = np.random.default_rng(4)
    whole = random.normal(size=(6, 30))
    padded = np.hstack([whole, np.full((6, 5), np.nan)])
    same = paired_difference(whole.mean(axis=1), np.zeros(6), images=whole)
    assert paired_difference(whole.mean(axis=1), np.zeros(6), images=padded).error == pytest.approx(same.error)


def test_overlapping_training_sets_widen_by_nadeau_and_bengios_factor() -> None:
    differences = sample(10, seed=5)
    plain, found = (paired_difference(differences, np.zeros(10), overlap=share) for share in (0.0, 0.2))
    assert plain.error is not None
    assert found.error == pytest.approx(plain.error * math.sqrt((1 / 10 + 0.2 / 0.8) / (1 / 10)))


def splits_of_a_pool(images: int, splits: int, tested: int, seed: int = 10) -> np.ndarray:
    """Differences of two arms, which an image has a lasting part in: NaN where a split has not tested it."""
    random = np.random.default_rng(seed)
    lasting, grid = random.normal(size=images), np.full((splits, images), np.nan)
    for row in grid:
        test = random.permutation(images)[:tested]
        row[test] = lasting[test] + random.normal(size=tested)
    return grid


def test_the_images_of_a_pool_count_for_being_tested_and_twice_for_being_trained_on() -> None:
    grid = splits_of_a_pool(60, 6, 20)
    means, seen = np.nanmean(grid, axis=1), np.isfinite(grid)
    products = np.zeros(60)
    for one, other in itertools.permutations(range(6), 2):
        both = seen[one] & seen[other]
        products[both] += (grid[one] - means[one])[both] * (grid[other] - means[other])[both] / 20**2 / (6 * 5)
    spread, lasting = means.var(ddof=1) / 6, 3 * products.sum() + (1 / 3) / 20**2
    found = paired_difference(means, np.zeros(6), images=grid, step=1.0, overlap=1 / 3)
    assert found.error == pytest.approx(math.sqrt(spread + lasting))
    assert found.df == pytest.approx((spread + lasting) ** 2 / (spread**2 / 5 + 4.5 * 60 * products.var()))


def test_splits_cannot_spread_less_than_their_test_images_explain() -> None:
    grid = splits_of_a_pool(60, 6, 20)
    even = grid - np.nanmean(grid, axis=1, keepdims=True) + 0.5
    found = paired_difference(np.full(6, 0.5), np.zeros(6), images=even, overlap=1 / 3)
    own = np.mean(np.nanvar(even, axis=1, ddof=1) / 20)
    assert found.repeats == pytest.approx((own - found.lasting / 3) / 6)
    assert found.df > 20


def test_what_test_images_have_in_common_is_measured_right() -> None:
    # An image's lasting part has variance 1, and two tests of 20 of 60 images share a third of theirs: 1 / 60 of it.
    found = [
        paired_difference(np.nanmean(grid, axis=1), np.zeros(6), images=grid, overlap=1 / 3).lasting / 3
        for grid in (splits_of_a_pool(60, 6, 20, seed) for seed in range(400))
    ]
    assert np.mean(found) == pytest.approx(1 / 60, rel=0.1)


def test_folds_test_no_image_twice_and_keep_nadeau_and_bengios_factor() -> None:
    grid = np.full((5, 50), np.nan)
    for fold, row in enumerate(grid):
        row[10 * fold : 10 * fold + 10] = np.random.default_rng(fold).normal(size=10)
    means = np.nanmean(grid, axis=1)
    plain = paired_difference(means, np.zeros(5), overlap=0.2)
    assert paired_difference(means, np.zeros(5), images=grid, step=1.0, overlap=0.2) == plain


def test_fresh_draws_add_what_two_of_them_have_in_common() -> None:
    random = np.random.default_rng(6)
    grid = random.normal(size=(8, 50))
    differences = grid.mean(axis=1)
    own = float(np.mean(grid.var(axis=1, ddof=1) / 50))
    found = paired_difference(differences, np.zeros(8), images=grid, shared=0.2)
    assert found.error == pytest.approx(math.sqrt(differences.var(ddof=1) / 8 + 7 / 8 * 0.2 * own))


def test_training_images_in_common_widen_what_splits_show() -> None:
    grid = np.random.default_rng(7).normal(size=(8, 1)) + np.zeros((8, 50))
    differences = grid.mean(axis=1)
    # Of draws that share a tenth, the variance seen is nine tenths of the whole, and a tenth of it is common to all.
    whole = differences.var(ddof=1) / 0.9
    found = paired_difference(differences, np.zeros(8), images=grid, drawn=0.1)
    assert found.error == pytest.approx(math.sqrt(whole / 8 + 7 / 8 * 0.1 * whole))


def test_without_randomness_images_decide_and_one_run_is_enough() -> None:
    grid = np.zeros((1, 200))
    grid[0, :30] = 1.0
    found = paired_difference([0.15], [0.0], images=grid, step=1.0, exact=True)
    assert found.significant
    assert found.low is not None
    assert not paired_difference([0.15], [0.0], images=grid, step=1.0).significant


def test_below_five_there_is_neither_interval_nor_verdict() -> None:
    found = paired_difference([1.0, 1.1, 0.9, 1.0], np.zeros(4))
    assert found.p is not None
    assert found.p < ALPHA
    assert (found.low, found.significant, found.few) == (None, False, True)


def test_equal_differences_say_no_more_than_their_number() -> None:
    assert paired_difference([0.1] * 6, [0.0] * 6).p == pytest.approx(2 / 2**6)
    assert paired_difference([0.1] * 6, [0.1] * 6).p == 1.0


def single(p: float) -> Paired:
    df = 7.0
    return Paired(float(stats.t.isf(p / 2, df)), 8, 1.0, 1.0, None, df, p=p)


def test_holm_agrees_with_the_definition() -> None:
    p_values = [0.04, 0.001, 0.2, 0.012, 0.012]
    ordered = sorted(p_values)
    expected = {p: max(min(1, (len(ordered) - j) * ordered[j]) for j in range(ordered.index(p) + 1)) for p in ordered}
    assert [item.p for item in corrected(list(map(single, p_values)))] == pytest.approx([expected[p] for p in p_values])
    assert corrected([]) == []


def test_a_question_declared_beforehand_has_half_of_the_error_rate_for_itself() -> None:
    items = [single(p) for p in (0.02, 0.004, 0.5)]
    declared = corrected(items, [True, False, False])
    # Weights 2, 1, 1: 0.004 comes first at 4 / 1 of itself, or 0.02 at 4 / 2; then what is left.
    assert [item.p for item in declared] == pytest.approx([0.03, 0.016, 0.5])


def test_p_and_interval_never_contradict_each_other() -> None:
    random = np.random.default_rng(8)
    seen = set()
    for _ in range(300):
        items = [paired_difference(random.normal(0.7, 1.0, 7), np.zeros(7)) for _ in range(random.integers(1, 6))]
        for item in corrected(items, [bool(random.integers(2)) for _ in items]):
            assert item.p is not None
            assert item.low is not None
            assert item.high is not None
            outside = not item.low <= 0 <= item.high
            assert outside == (item.p < ALPHA)
            seen.add(outside)
    assert seen == {True, False}


def test_what_could_have_been_seen_is_seen_four_times_in_five() -> None:
    random, hits, trials = np.random.default_rng(9), 0, 2000
    reach = paired_difference(random.normal(size=4000), np.zeros(4000)).error or 0.0
    item = replace(paired_difference(sample(10), np.zeros(10)), error=reach * math.sqrt(4000) / math.sqrt(10))
    size = item.detectable()
    assert size is not None
    for _ in range(trials):
        hits += paired_difference(random.normal(size, 1.0, 10), np.zeros(10)).significant
    assert hits / trials == pytest.approx(0.8, abs=0.05)


def test_how_many_more_would_be_needed() -> None:
    item = Paired(0.5, 8, math.sqrt(0.1), 0.08, 0.02, 20.0, p=0.1)
    needed = item.needed(0.5)
    assert needed is not None
    reach = stats.norm.isf(0.025) + stats.norm.ppf(0.8)
    assert math.sqrt(0.08 * 8 / needed + 0.02) * reach <= 0.5 < math.sqrt(0.08 * 8 / (needed - 1) + 0.02) * reach
    assert item.needed(0.2) is None  # the images alone make more noise than that


@pytest.mark.parametrize("options", [{"overlap": 0.2}, {"drawn": 0.1}, {"shared": 0.2, "drawn": 0.05}])
def test_what_splits_have_in_common_is_there_however_many_there_are(options: dict[str, float]) -> None:
    random = np.random.default_rng(4)
    grid = (random.normal(0.2, 1.0, (8, 300)) + random.normal(0, 0.3, (8, 1)) > 0.4).astype(float)
    differences = grid.mean(axis=1)
    found = paired_difference(differences, np.zeros(8), images=None if "overlap" in options else grid, **options)
    assert found.error is not None
    assert found.repeats + found.lasting == pytest.approx(found.error**2)
    own = differences.var(ddof=1)
    if "overlap" in options:  # Nadeau and Bengio's factor
        assert (found.repeats, found.lasting) == pytest.approx((own / 8, own * 0.2 / 0.8))
    size = 3.0 * math.sqrt(found.lasting)
    needed, reach = found.needed(size), stats.norm.isf(0.025) + stats.norm.ppf(0.8)
    assert needed is not None
    assert math.sqrt(found.repeats * 8 / needed + found.lasting) * reach <= size
    assert found.needed(2.7 * math.sqrt(found.lasting)) is None


def test_the_candidates_are_those_that_no_other_is_surely_better_than() -> None:
    means = [0.0, 0.1, 3.0, 3.2]

    def minus(a: int, b: int) -> Paired | None:
        return (
            None
            if a == b
            else Paired(means[a] - means[b], 8, 0.5, 0.25, 0.0, 7.0, p=2 * stats.t.sf(2 * abs(means[a] - means[b]), 7))
        )

    pairs = [[minus(a, b) for b in range(4)] for a in range(4)]
    assert candidates(pairs) == [2, 3]
    # Three points in half a point of error: p = 0.0005 a pair.
    assert candidates([[pair and pair.among(200) for pair in row] for row in pairs]) == [0, 1, 2, 3]
