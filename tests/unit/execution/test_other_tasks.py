"""Regression and multilabel: metrics and losses against scikit-learn and plain formulas."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from headstart.errors import ConfigError, DataError
from headstart.tasks import build_task

TRAIN = np.array([[10.0, 1.0], [20.0, 3.0], [60.0, 8.0]], dtype=np.float32)


def numbers(count: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(count, 2, generator=generator)
    targets = outputs * torch.tensor([20.0, 3.0]) + 30 + torch.randn(count, 2, generator=generator)
    return outputs, targets


def test_regression_learns_standardised_and_is_scored_in_its_own_units():
    task = build_task("regression", ["age", "size"], train_targets=TRAIN)
    outputs, targets = numbers()
    mean, std = TRAIN.mean(0), TRAIN.std(0)
    assert task.loss(outputs, targets).item() == pytest.approx(
        float((((targets.numpy() - mean) / std - outputs.numpy()) ** 2).mean()), rel=1e-5
    )
    predicted = outputs.numpy() * std + mean
    np.testing.assert_allclose(task.probabilities(outputs).numpy(), predicted, rtol=1e-5)
    values = task.evaluate(outputs, targets)
    assert values["mae"] == pytest.approx(mean_absolute_error(targets, predicted), rel=1e-5)
    assert values["rmse"] == pytest.approx(root_mean_squared_error(targets, predicted), rel=1e-5)
    assert values["r2"] == pytest.approx(r2_score(targets, predicted), rel=1e-5)
    assert values["rmse_size"] == pytest.approx(root_mean_squared_error(targets[:, 1], predicted[:, 1]), rel=1e-5)
    scaled = root_mean_squared_error(targets.numpy() / std, predicted / std)
    assert values["nrmse"] == pytest.approx(scaled, rel=1e-5)
    assert task.training_summary(outputs, targets)["nrmse"] == pytest.approx(scaled, rel=1e-5)
    assert tuple(values) == task.metric_names
    assert (task.monitor, task.monitor_mode, task.outputs) == ("val/nrmse", "min", 2)


def test_regression_is_rebuilt_from_its_record():
    task = build_task("regression", ["age", "size"], train_targets=TRAIN)
    again = build_task("regression", ["age", "size"], record=task.record())
    outputs, _ = numbers()
    assert torch.equal(task.probabilities(outputs), again.probabilities(outputs))


def test_one_number_has_no_metrics_of_its_parts_and_a_constant_split_is_no_division_by_zero():
    task = build_task("regression", ["age"], train_targets=np.array([[5.0], [9.0]]))
    values = task.evaluate(torch.zeros(3, 1), torch.full((3, 1), 7.0))
    assert values["rmse"] == 0
    assert set(values) == {"loss", "mae", "rmse", "r2"}
    assert np.isnan(values["r2"])
    assert np.isnan(task.evaluate(torch.full((3, 1), torch.nan), torch.zeros(3, 1))["rmse"])


def labels(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(count, 3, generator=generator) < torch.tensor([0.5, 0.2, 0.7])).float()
    return torch.randn(count, 3, generator=generator) + targets, targets


def test_multilabel_metrics_are_those_of_scikit_learn():
    task = build_task("multilabel", ["a", "b", "c"])
    outputs, targets = labels()
    values = task.evaluate(outputs, targets)
    probabilities = outputs.sigmoid().numpy()
    assert values["map"] == pytest.approx(average_precision_score(targets, probabilities, average="macro"), abs=1e-6)
    assert values["f1"] == pytest.approx(f1_score(targets, probabilities >= 0.5, average="macro"), abs=1e-6)
    expected = -(targets * outputs.sigmoid().log() + (1 - targets) * (-outputs).sigmoid().log()).mean()
    assert values["loss"] == pytest.approx(expected.item(), abs=1e-6)
    assert (task.monitor, task.monitor_mode) == ("val/map", "max")


def test_a_label_that_does_not_occur_is_left_out_of_the_mean():
    task = build_task("multilabel", ["a", "b", "c"])
    outputs, targets = labels()
    targets[:, 1] = 0
    kept = average_precision_score(targets[:, [0, 2]], outputs[:, [0, 2]], average="macro")
    assert task.evaluate(outputs, targets)["map"] == pytest.approx(kept, abs=1e-6)
    assert np.isnan(task.evaluate(outputs, torch.zeros_like(targets))["map"])


def test_balanced_labels_weigh_presence_by_rarity():
    targets = np.array([[1, 0], [0, 0], [0, 1], [0, 1]], dtype=np.float32)
    task = build_task("multilabel", ["a", "b"], class_weights="balanced", train_targets=targets)
    present, absent = (task.objective(torch.zeros(1, 2), torch.tensor([[value, 0.0]])) for value in (1.0, 0.0))
    once = float(np.log(2)) / 2
    assert present.item() == pytest.approx(once * 3 + once)
    assert absent.item() == pytest.approx(once * 2)


def test_a_single_label_has_an_f1():
    task = build_task("multilabel", ["a"])
    outputs, targets = labels()
    assert task.evaluate(outputs[:, :1], targets[:, :1])["f1"] == pytest.approx(
        f1_score(targets[:, 0], outputs[:, 0] >= 0), abs=1e-6
    )


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (DataError, "do not|does not fit", {"name": "multiclass", "train_targets": TRAIN}),
        (DataError, "one class an image", {"name": "multilabel", "train_targets": [0, 1]}),
        (ConfigError, "label_smoothing", {"name": "regression", "train_targets": TRAIN, "label_smoothing": 0.1}),
        (ConfigError, "class_weights", {"name": "regression", "train_targets": TRAIN, "class_weights": "balanced"}),
        (ConfigError, "needs the targets", {"name": "regression"}),
        (ConfigError, "2 classes", {"name": "multilabel", "class_weights": [1.0]}),
    ],
)
def test_what_does_not_fit_is_refused(error, match, arguments):
    with pytest.raises(error, match=match):
        build_task(classes=["a", "b"], **arguments)


def test_a_label_on_every_image_is_weighed_as_any():
    targets = np.array([[1, 0], [1, 0], [1, 1], [1, 0]], dtype=np.float32)
    task = build_task("multilabel", ["always", "b"], class_weights="balanced", train_targets=targets)
    outputs = torch.zeros(4, 2, requires_grad=True)
    task.objective(outputs, torch.from_numpy(targets)).backward()
    assert outputs.grad is not None
    assert (outputs.grad[:, 0] < 0).all()
