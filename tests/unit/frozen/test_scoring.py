"""Scores of many jobs at once are those of the task."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.frozen.scoring import score_many
from headstart.tasks import Task, build_task

TEN = tuple("0123456789")


def outputs_of(jobs: int, rows: int, columns: int, *, coarse: bool = False) -> Tensor:
    values = torch.randn(jobs, rows, columns, generator=torch.Generator().manual_seed(3))
    # Few different values: ties, as 16-bit logits and saturated probabilities make them.
    return (values * 2).round() / 2 if coarse else values


def check(task: Task, outputs: Tensor, targets: Tensor) -> None:
    scores = score_many(task, outputs, targets)
    for job, found in enumerate(scores):
        expected = task.evaluate(outputs[job], targets)
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=2e-6, nan_ok=True), f"job {job}, {name}"
        for name in ("acc", "loss"):
            if name in expected and math.isfinite(expected[name]):
                assert found[name] == expected[name], f"job {job}, {name} chooses checkpoints"


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("classes", [2, 5, 10])
def test_classes(classes: int, coarse: bool):
    task = build_task("multiclass", TEN[:classes], label_smoothing=0.1)
    targets = torch.randint(classes, (150,), generator=torch.Generator().manual_seed(0))
    outputs = outputs_of(4, 150, classes, coarse=coarse)
    if coarse:  # Which of several equal outputs are the five largest is left open.
        outputs += torch.arange(classes) * 1e-3
    check(task, outputs, targets)


def test_a_class_that_does_not_occur():
    targets = torch.randint(3, (60,), generator=torch.Generator().manual_seed(0))
    check(build_task("multiclass", TEN[:4]), outputs_of(3, 60, 4), targets)


def test_one_class_only():
    task = build_task("multiclass", TEN[:3])
    scores = score_many(task, outputs_of(2, 9, 3), torch.zeros(9, dtype=torch.long))
    assert all(math.isnan(found["auroc"]) for found in scores)


def test_weights_of_classes():
    task = build_task("multiclass", TEN[:3], class_weights=[1.0, 2.0, 0.5])
    check(task, outputs_of(2, 40, 3), torch.arange(40) % 3)


def test_one_sigmoid():
    check(build_task("binary", TEN[:2]), outputs_of(3, 50, 1), torch.arange(50) % 2)


def test_a_job_that_is_not_a_number_harms_no_other():
    task, targets = build_task("multiclass", TEN), torch.arange(30) % 10
    outputs = outputs_of(3, 30, 10)
    outputs[1, 4, 2] = torch.nan
    scores = score_many(task, outputs, targets)
    assert all(math.isnan(value) for value in scores[1].values())
    check(task, outputs[[0, 2]], targets)
    assert scores[0] == score_many(task, outputs[:1], targets)[0]


def test_labels_and_numbers_are_scored_by_their_task():
    generator = np.random.default_rng(0)
    labels = torch.from_numpy((generator.random((40, 3)) < 0.4).astype("float32"))
    check(build_task("multilabel", TEN[:3]), outputs_of(2, 40, 3), labels)
    numbers = generator.normal(size=(40, 2)).astype("float32")
    check(build_task("regression", ("a", "b"), train_targets=numbers), outputs_of(2, 40, 2), torch.from_numpy(numbers))
