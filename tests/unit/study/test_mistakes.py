"""Calibration, confusion and changed images against slow versions and by hand."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from headstart.runs.reader import StoredPredictions
from headstart.study.mistakes import calibration, changed_images, confusion, of_each_class


def slow_calibration_error(probabilities: np.ndarray, targets: np.ndarray, bins: int) -> float:
    total = 0.0
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        inside = [
            (p.max(), p.argmax() == t) for p, t in zip(probabilities, targets, strict=True) if low < p.max() <= high
        ]
        if inside:
            said, right = np.mean([p for p, _ in inside]), np.mean([r for _, r in inside])
            total += len(inside) / len(targets) * abs(said - right)
    return total


def predictions(labels: list[int], targets: list[int]) -> StoredPredictions:
    chances = np.full((len(labels), 3), 0.1)
    chances[np.arange(len(labels)), labels] = 0.8
    return StoredPredictions(
        np.array([f"{i}.png" for i in range(len(labels))]), np.array(targets), chances, ("a", "b", "c")
    )


def test_calibration_error_agrees_with_the_slow_version() -> None:
    generator = np.random.default_rng(0)
    probabilities, targets = generator.dirichlet(np.ones(4), size=500), generator.integers(4, size=500)
    found = calibration(probabilities, targets, bins=10)
    assert found.error == pytest.approx(slow_calibration_error(probabilities, targets, 10))
    assert found.count.sum() == 500
    assert (found.count > 0).all()


def test_a_model_that_is_right_as_often_as_it_says_has_no_error() -> None:
    probabilities = np.tile([0.8, 0.2], (10, 1))
    targets = np.array([0] * 8 + [1] * 2)
    assert calibration(probabilities, targets).error == pytest.approx(0.0)
    assert calibration(probabilities, 1 - targets).error == pytest.approx(0.6)


def test_a_single_column_is_the_probability_of_class_one() -> None:
    column = np.array([[0.9], [0.2], [0.6]])
    both = np.hstack([1 - column, column])
    targets = np.array([1, 0, 0])
    assert calibration(column, targets).error == pytest.approx(calibration(both, targets).error)


def test_confusion_counts_true_by_row() -> None:
    counts = confusion([predictions([0, 1, 1], [0, 0, 2]), predictions([0, 0, 2], [0, 0, 2])])
    assert counts.tolist() == [[3, 1, 0], [0, 0, 0], [0, 1, 1]]


def test_each_class_is_scored_as_by_scikit_learn_over_all_runs() -> None:
    targets = [0, 0, 1, 1, 2]
    labels = [[0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    found = of_each_class(confusion([predictions(said, targets) for said in labels]))
    expected = precision_recall_fscore_support(
        targets * 2, [*labels[0], *labels[1]], labels=[0, 1, 2], zero_division=np.nan
    )
    for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
        np.testing.assert_allclose(found[name], values, err_msg=name)
    assert np.isnan(found["precision"][2])


def test_changed_images_are_those_whose_usual_prediction_differs() -> None:
    truth = [0, 1, 2, 0]
    freeze = [predictions([0, 0, 2, 1], truth), predictions([0, 0, 2, 1], truth), predictions([0, 1, 2, 0], truth)]
    full = [predictions([0, 1, 2, 0], truth), predictions([0, 1, 1, 0], truth), predictions([0, 1, 2, 1], truth)]
    changed = changed_images({"freeze": freeze, "full": full})
    assert [item.id for item in changed] == ["1.png", "3.png"]
    assert changed[0].predicted == {"freeze": "a", "full": "b"}
    assert changed[0].right == pytest.approx({"freeze": 1 / 3, "full": 1.0})
    assert changed[0].target == "b"
