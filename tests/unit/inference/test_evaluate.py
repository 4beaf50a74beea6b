"""Intervals over images and the calibration error, against slow or known answers."""

import math

import numpy as np
import pytest
import torch

from headstart.inference.evaluate import scored
from headstart.tasks import build_task
from headstart.tasks.calibration import calibration_error


def outputs_of(right: int, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of two classes, so many right."""
    targets = torch.arange(total) % 2
    said = torch.where(torch.arange(total) < right, targets, 1 - targets)
    return torch.nn.functional.one_hot(said, 2).float() * 3, targets


def test_the_interval_of_an_accuracy_is_the_binomial_one():
    outputs, targets = outputs_of(160, 200)
    score = scored(build_task("multiclass", ("a", "b")), outputs, targets, own={"val/acc": 0.9})["acc"]
    assert score.value == pytest.approx(0.8)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 200)
    assert score.low == pytest.approx(0.8 - half, abs=0.01)
    assert score.high == pytest.approx(0.8 + half, abs=0.01)
    assert score.own == 0.9


def test_every_metric_has_an_interval_and_the_test_metric_stands_beside_it():
    outputs, targets = outputs_of(30, 40)
    task = build_task("multiclass", ("a", "b"))
    found = scored(task, outputs, targets, own={"val/f1": 0.1, "test/f1": 0.2}, draws=50)
    assert set(found) == {*task.metric_names, "calibration_error"}
    assert found["f1"].own == 0.2
    assert found["loss"].own is None
    assert all(score.low <= score.value <= score.high for score in found.values())
    assert scored(task, outputs, targets, own={}, draws=50)["f1"].low == found["f1"].low


def test_a_metric_that_is_not_defined_has_no_interval():
    outputs = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    found = scored(build_task("multiclass", ("a", "b")), outputs, torch.tensor([0, 0]), own={}, draws=20)
    assert math.isnan(found["auroc"].value)
    assert math.isnan(found["auroc"].low)
    assert found["acc"].low == found["acc"].high == 1.0


def test_the_calibration_error_is_that_of_a_slow_definition():
    rng = np.random.default_rng(0)
    probabilities, targets = rng.dirichlet((1.0, 1.0, 1.0), 300), rng.integers(0, 3, 300)
    slow = 0.0
    for place in range(15):
        inside = [
            (row.max(), row.argmax() == target)
            for row, target in zip(probabilities, targets, strict=True)
            if place / 15 <= row.max() < (place + 1) / 15 or (place == 14 and row.max() == 1)
        ]
        if inside:
            slow += len(inside) / 300 * abs(np.mean([right for _, right in inside]) - np.mean([p for p, _ in inside]))
    assert calibration_error(probabilities, targets) == pytest.approx(slow)
