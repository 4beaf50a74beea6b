"""Several models scored at once: each as torchmetrics scores it alone, whatever the others are."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_accuracy,
    multiclass_cohen_kappa,
    multiclass_f1_score,
    multiclass_recall,
)

from headstart.tasks import Binary, Multiclass, Task, build_task

TEN = tuple("0123456789")


def outputs_of(jobs: int, rows: int, columns: int, *, coarse: bool = False) -> Tensor:
    values = torch.randn(jobs, rows, columns, generator=torch.Generator().manual_seed(3))
    # Few different values: ties, as 16-bit logits and saturated probabilities make them.
    return (values * 2).round() / 2 if coarse else values


def slowly(task: Task, outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """The same by torchmetrics, one model at a time."""
    if not isinstance(task, Multiclass | Binary):
        return task.evaluate(outputs, targets)
    probabilities, count = task.probabilities(outputs), len(task.classes)
    there = [1] if count == 2 else sorted(set(targets.tolist()))
    areas = [float(binary_auroc(probabilities[:, c], (targets == c).long())) for c in there]
    precisions = [float(binary_average_precision(probabilities[:, c], (targets == c).long())) for c in there]
    recalls = multiclass_recall(probabilities, targets, count, average="none")
    values = {
        "loss": float(task.loss(outputs, targets)),
        "acc": float(multiclass_accuracy(probabilities, targets, count, average="micro")),
        "f1": float(multiclass_f1_score(probabilities, targets, count, average="macro")),
        "auroc": sum(areas) / len(areas),
    }
    if count > 5:
        values["top5"] = float(multiclass_accuracy(probabilities, targets, count, average="micro", top_k=5))
    values["balanced_acc"] = float(recalls[targets.unique()].mean())
    values["kappa"] = float(multiclass_cohen_kappa(probabilities, targets, count))
    values["ap"] = sum(precisions) / len(precisions)
    return values


def check(task: Task, outputs: Tensor, targets: Tensor) -> None:
    scores = task.evaluate_each(outputs, targets)
    for job, found in enumerate(scores):
        expected = slowly(task, outputs[job], targets)
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=2e-6, nan_ok=True), f"job {job}, {name}"
        assert found == pytest.approx(task.evaluate(outputs[job], targets), abs=1e-7, nan_ok=True)


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


def test_columns_in_parts_are_columns_at_once(monkeypatch: pytest.MonkeyPatch):
    task, targets, outputs = build_task("multiclass", TEN), torch.arange(50) % 10, outputs_of(3, 50, 10, coarse=True)
    whole = task.evaluate_each(outputs, targets)
    monkeypatch.setattr("headstart.tasks.scores._AT_A_TIME", 3 * 50 * 4)
    assert task.evaluate_each(outputs, targets) == whole


def test_one_class_only():
    task = build_task("multiclass", TEN[:3])
    scores = task.evaluate_each(outputs_of(2, 9, 3), torch.zeros(9, dtype=torch.long))
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
    scores = task.evaluate_each(outputs, targets)
    assert all(math.isnan(value) for value in scores[1].values())
    check(task, outputs[[0, 2]], targets)
    assert scores[0] == task.evaluate_each(outputs[:1], targets)[0]


def test_labels_and_numbers_are_scored_by_their_task():
    generator = np.random.default_rng(0)
    labels = torch.from_numpy((generator.random((40, 3)) < 0.4).astype("float32"))
    check(build_task("multilabel", TEN[:3]), outputs_of(2, 40, 3), labels)
    numbers = generator.normal(size=(40, 2)).astype("float32")
    check(build_task("regression", ("a", "b"), train_targets=numbers), outputs_of(2, 40, 2), torch.from_numpy(numbers))
