import numpy as np
import pytest

from headstart.ranking.curve import LearningCurve, learning_curve
from headstart.transferability.examples import Labelled


def power_law(images: tuple[int, ...], noise: float = 0.0) -> LearningCurve:
    rng = np.random.default_rng(0)
    means = 0.05 + 1.2 * np.array(images) ** -0.5
    return LearningCurve(images, means[:, None] + noise * rng.normal(size=(len(images), 8)), judged=10**9)


def test_a_power_law_is_found_and_goes_on():
    curve = power_law((50, 100, 200, 400))
    for images in (400, 800, 1600):
        found = curve.at(images)
        assert found.value == pytest.approx(0.05 + 1.2 * images**-0.5, abs=1e-4)
        assert found.high - found.low < 1e-3


def test_noise_between_draws_widens_the_interval_and_the_further_the_more():
    curve = power_law((50, 100, 200, 400), noise=0.02)
    near, far = curve.at(400), curve.at(6400)
    assert near.low <= 0.05 + 1.2 * 400**-0.5 <= near.high
    assert far.low <= 0.05 + 1.2 * 6400**-0.5 <= far.high
    assert far.high - far.low > near.high - near.low
    # The mean of eight draws: what is left of their spread after the images that judge is about the noise.
    assert curve.spread == pytest.approx(0.02, rel=0.5)


def test_the_spread_leaves_out_what_the_judging_images_explain():
    rng = np.random.default_rng(1)
    errors = rng.binomial(50, 0.2, size=(3, 2000)) / 50
    assert LearningCurve((10, 20, 40), errors, judged=50).spread < 0.015


def test_more_images_make_fewer_errors_where_there_is_something_to_learn():
    rng = np.random.default_rng(0)
    targets = np.arange(600) % 4
    features = rng.normal(size=(600, 60)) + 0.2 * rng.normal(size=(4, 60))[targets]
    curve = learning_curve(Labelled.of(features, targets))
    assert curve is not None
    means = curve.errors.mean(axis=1)
    assert curve.images == (60, 120, 240, 480)
    assert means[0] > means[-1] + 0.05
    assert curve.at(960).value < means[-1]


def test_too_few_images_give_no_curve():
    assert learning_curve(Labelled.of(np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 2)) is None


def test_a_class_that_a_subset_lacks_is_no_error_of_numbering():
    rng = np.random.default_rng(0)
    targets = np.r_[np.zeros(100, int), np.ones(2, int), np.full(100, 2)]
    features = 50 * np.eye(3)[targets] + rng.normal(size=(202, 3))
    curve = learning_curve(Labelled.of(features, targets))
    assert curve is not None
    assert curve.errors.max() < 0.05
