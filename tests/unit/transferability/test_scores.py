"""Every score at its limits and under what must not change it."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris, load_wine

from headstart.errors import DataError
from headstart.transferability.examples import Labelled, folds_of
from headstart.transferability.scores import MEANINGS, score_all
from headstart.transferability.scores_features import h_score

ON_FEATURES = [name for name in MEANINGS if name not in ("leep", "nce")]


def made(apart: float, *, images: int = 120, dims: int = 12, classes: int = 3, seed: int = 0) -> Labelled:
    """Gaussian classes, ``apart`` standard deviations from each other or so."""
    rng = np.random.default_rng(seed)
    targets = np.arange(images) % classes
    features = rng.normal(size=(images, dims)) + apart * rng.normal(size=(classes, dims))[targets]
    return Labelled.of(features, targets)


def values(data: Labelled, probabilities: np.ndarray | None = None) -> dict[str, float]:
    return {name: found.value for name, found in score_all(data, probabilities).values.items()}


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def test_more_separated_classes_score_higher_in_every_score():
    scored = []
    for apart in (0.0, 0.5, 3.0):
        data = made(apart)
        logits = 3 * np.eye(5)[data.targets] * apart + np.random.default_rng(1).normal(size=(len(data), 5))
        scored.append(values(data, softmax(logits)))
    assert list(scored[0]) == list(MEANINGS)
    for name in MEANINGS:
        noise, some, much = (found[name] for found in scored)
        assert noise < some < much, name


def test_noise_is_no_better_than_chance():
    found = values(made(0.0, images=600, dims=40))
    for name in ("logistic", "ridge", "knn", "nearest_mean"):
        assert abs(found[name] - 1 / 3) < 0.07, name
    assert found["logme"] == pytest.approx(-0.5 * np.log(2 * np.pi * np.e / 3), abs=0.02)
    assert found["h_score"] < 0.05


def test_perfect_features_are_found_perfect():
    targets = np.arange(60) % 3
    found = values(Labelled.of(np.eye(3)[targets], targets), np.eye(3)[targets])
    for name in ("logistic", "ridge", "knn", "nearest_mean"):
        assert found[name] == 1.0, name
    assert found["leep"] == found["nce"] == pytest.approx(0.0, abs=1e-9)
    assert found["n_leep"] == pytest.approx(0.0, abs=1e-3)
    assert found["gbc"] == pytest.approx(0.0, abs=1e-6)
    # The covariance of rank 2 is singular, so the shrunk one is compared with its formula's limit.
    assert h_score(Labelled.of(np.eye(3)[targets], targets), shrinkage=0.0) == pytest.approx(2.0)


def test_unshrunk_h_score_calls_noise_perfect_and_the_shrunk_one_does_not():
    noise = made(0.0, images=60, dims=200)
    assert h_score(noise, shrinkage=0.0) == pytest.approx(2.0, abs=1e-6)
    assert h_score(noise) < 0.5


def hard(name: str) -> Labelled:
    """Data at a limit."""
    data = made(1.0)
    rng = np.random.default_rng(3)
    cases = {
        "fewer images than dimensions": lambda: made(1.0, images=30, dims=200),
        "a class number without images": lambda: Labelled.of(data.features, data.targets * 2),
        "every image twice": lambda: Labelled.of(np.repeat(data.features, 2, axis=0), np.repeat(data.targets, 2)),
        "one image over and over": lambda: Labelled.of(np.tile(data.features[:3], (9, 1)), np.tile([0, 1, 2], 9)),
        "constant features": lambda: Labelled.of(np.full((20, 5), 3.0), np.arange(20) % 2),
        "zeros": lambda: Labelled.of(np.zeros((20, 5)), np.arange(20) % 2),
        "some constant features": lambda: Labelled.of(
            np.hstack([data.features, np.full((len(data), 3), 7.0)]), data.targets
        ),
        "a class of one image": lambda: Labelled.of(data.features, np.r_[3, data.targets[1:]]),
        "one image a class": lambda: Labelled.of(rng.normal(size=(4, 6)), np.arange(4)),
        "tiny": lambda: Labelled.of(data.features * 1e-300, data.targets),
        "huge": lambda: Labelled.of(data.features * 1e300, data.targets),
        "one dimension": lambda: Labelled.of(rng.normal(size=(40, 1)), np.arange(40) % 2),
        "a dominating feature": lambda: Labelled.of(
            np.hstack([data.features, 1e8 * rng.normal(size=(len(data), 1))]), data.targets
        ),
    }
    return cases[name]() if name in cases else pytest.fail(name)


@pytest.mark.parametrize(
    "case",
    [
        "fewer images than dimensions",
        "a class number without images",
        "every image twice",
        "one image over and over",
        "constant features",
        "zeros",
        "some constant features",
        "a class of one image",
        "one image a class",
        "tiny",
        "huge",
        "one dimension",
        "a dominating feature",
    ],
)
def test_every_score_is_finite_at_the_limits(case: str):
    data = hard(case)
    found = score_all(data).values
    assert list(found) == ON_FEATURES
    for name, value in found.items():
        assert np.isfinite(value.value), name
        if value.low is not None and value.high is not None:
            assert np.isfinite([value.low, value.high]).all(), name
            assert value.low <= value.value <= value.high, name


def test_constant_features_tell_the_classes_no_better_than_their_sizes():
    found = values(Labelled.of(np.ones((30, 4)), np.arange(30) // 20))
    assert found["ridge"] == found["logistic"] == pytest.approx(2 / 3)
    assert found["h_score"] == found["transrate"] == 0.0
    assert found["gbc"] == -2.0


@pytest.mark.parametrize("change", ["rotation", "order", "names of the classes", "scale"])
def test_what_does_not_matter_changes_nothing(change: str):
    data, rng = made(0.8, images=90, dims=10), np.random.default_rng(5)
    order = rng.permutation(len(data))
    changed = {
        "rotation": lambda: Labelled.of(data.features @ np.linalg.qr(rng.normal(size=(10, 10)))[0], data.targets),
        "order": lambda: Labelled.of(data.features[order], data.targets[order]),
        "names of the classes": lambda: Labelled.of(data.features, np.array([2, 0, 1])[data.targets]),
        "scale": lambda: Labelled.of(data.features * 37.0, data.targets),
    }[change]()
    before, after = values(data), values(changed)
    for name in ON_FEATURES:
        # Folds, and the start of the mixture, follow the order of images and classes.
        loose = name in ("logistic", "ridge", "n_leep") and change != "scale"
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=0.12 if loose else 1e-9), name


@pytest.mark.parametrize("load", [load_iris, load_wine, load_digits])
def test_intervals_hold_the_value_and_shrink_with_more_images(load):
    features, targets = load(return_X_y=True)
    few = score_all(Labelled.of(features[::6], targets[::6])).values
    many = score_all(Labelled.of(features, targets)).values
    narrower = 0
    for name in ON_FEATURES:
        for found in (few[name], many[name]):
            assert found.low <= found.value <= found.high
        narrower += many[name].high - many[name].low < few[name].high - few[name].low
    assert narrower >= len(ON_FEATURES) - 2


def test_unusable_input_is_refused():
    with pytest.raises(DataError, match="at least two"):
        Labelled.of(np.ones((4, 2)), [1, 1, 1, 1])
    with pytest.raises(DataError, match="NaN or infinity"):
        Labelled.of([[np.nan, 1.0], [0.0, 1.0]], [0, 1])
    with pytest.raises(DataError, match=r"\(3, 2\) and targets \(2,\)"):
        Labelled.of(np.ones((3, 2)), [0, 1])
    with pytest.raises(DataError, match="no probabilities"):
        score_all(made(1.0), np.ones((120, 4)))


def test_folds_spread_every_class():
    targets = np.r_[np.zeros(53, int), np.ones(11, int), np.full(2, 2)]
    folds = folds_of(targets, 5)
    for one in range(3):
        counts = np.bincount(folds[targets == one], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(folds, folds_of(targets, 5, seed=1))
