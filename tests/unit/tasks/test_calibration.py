"""What is fitted to validation, against slow definitions."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from headstart.tasks import build_task
from headstart.tasks.calibration import abstention, best_temperature, best_thresholds, calibration_error

CLASSES = tuple("abcde")


def overconfident(factor: float, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs that are ``factor`` times as sure as the targets that were drawn from them."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, len(CLASSES), generator=generator) * 1.5
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits * factor, targets


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_the_temperature_undoes_what_confidence_is_off_by(factor: float) -> None:
    task = build_task("multiclass", CLASSES)
    outputs, targets = overconfident(factor)
    before, error = (
        task.evaluate(outputs, targets),
        calibration_error(task.probabilities(outputs).numpy(), targets.numpy()),
    )
    task.temperature = best_temperature(task, outputs, targets)
    assert task.temperature == pytest.approx(factor, rel=0.06)
    after = task.evaluate(outputs, targets)
    assert after["loss"] < before["loss"]
    assert calibration_error(task.probabilities(outputs).numpy(), targets.numpy()) < min(0.035, error / 3)
    for name in ("acc", "f1", "balanced_acc", "kappa"):
        assert after[name] == before[name]
    grid = [float(task.loss(outputs / t, targets)) for t in np.geomspace(0.05, 20, 300)]
    assert after["loss"] <= min(grid) + 1e-6


def test_labels_and_one_sigmoid_have_a_temperature_too() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4000, 3, generator=generator)
    labels = (torch.rand(4000, 3, generator=generator) < logits.sigmoid()).float()
    assert best_temperature(build_task("multilabel", CLASSES[:3]), logits * 2, labels) == pytest.approx(2, rel=0.06)
    single = build_task("binary", CLASSES[:2])
    assert best_temperature(single, logits[:, :1] * 2, labels[:, 0].long()) == pytest.approx(2, rel=0.08)


def test_where_everything_is_right_the_temperature_stays_within_bounds() -> None:
    task = build_task("multiclass", ("a", "b"))
    found = best_temperature(task, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert 0.05 <= found < 0.06


def test_the_error_of_labels_is_that_of_every_probability() -> None:
    generator = np.random.default_rng(0)
    said, labels = generator.random((200, 3)), (generator.random((200, 3)) < 0.4).astype(float)
    slow, flat, truth = 0.0, said.ravel(), labels.ravel()
    for low in np.arange(15) / 15:
        inside = (flat >= low) & (flat < low + 1 / 15)
        slow += inside.sum() / 600 * abs(truth[inside].mean() - flat[inside].mean())
    assert calibration_error(said, labels) == pytest.approx(slow)


def test_thresholds_have_the_best_f1_there_is() -> None:
    generator = np.random.default_rng(1)
    labels = (generator.random((60, 4)) < [0.05, 0.3, 0.6, 0.0]).astype(np.float32)
    said = np.clip(generator.normal(0.25 * labels + 0.2, 0.15), 0.01, 0.99).astype(np.float32)
    said[:, 1] = said[:, 1].round(1)  # many are equal
    found = best_thresholds(said, labels, 0.5)
    for column in range(3):
        truth, values = labels[:, column], said[:, column]
        slow = max(f1_score(truth, values >= level) for level in values)
        assert f1_score(truth, values.astype(np.float64) >= found[column]) == pytest.approx(slow)
        assert f1_score(truth, values >= 0.5, zero_division=0) < slow  # else nothing would be shown
    assert found[3] == 0.5


def test_of_thresholds_that_are_as_good_the_one_nearest_to_the_usual_is_taken() -> None:
    labels = np.array([[1.0], [1.0], [0.0]])
    assert best_thresholds(np.array([[0.9], [0.6], [0.2]]), labels, 0.5) == [0.5]
    assert best_thresholds(np.array([[0.9], [0.4], [0.2]]), labels, 0.5) == [pytest.approx(0.3)]
    assert best_thresholds(np.array([[0.9], [0.8], [0.7]]), labels, 0.5) == [pytest.approx(0.75)]


def slowly(probabilities: np.ndarray, targets: np.ndarray, max_error: float) -> tuple[float, float] | None:
    """Largest share of answered images, and its error, over all limits that keep the error."""
    sure, wrong = probabilities.max(1), probabilities.argmax(1) != targets
    kept = [((sure >= least).mean(), wrong[sure >= least].mean()) for least in sure]
    good = [item for item in kept if item[1] <= max_error]
    return max(good) if good else None


@pytest.mark.parametrize("max_error", [0.0, 0.05, 0.2, 0.9])
@pytest.mark.parametrize("digits", [1, 5], ids=["ties", "distinct"])
def test_answers_are_withheld_no_more_than_needed(max_error: float, digits: int) -> None:
    task = build_task("multiclass", CLASSES)
    outputs, targets = overconfident(1.5, 300)
    probabilities = task.probabilities(outputs).numpy().round(digits)
    expected, found = (
        slowly(probabilities, targets.numpy(), max_error),
        abstention(probabilities, targets.numpy(), max_error),
    )
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found.answered, found.error) == pytest.approx(expected)
    assert (probabilities.max(1) >= found.least).mean() == pytest.approx(found.answered)


def test_no_limit_keeps_an_error_that_the_surest_answer_exceeds() -> None:
    assert abstention(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([1, 1]), 0.4) is None


def test_what_was_fitted_comes_back_from_the_record() -> None:
    task = build_task("multilabel", ("a", "b"))
    task.temperature, task.thresholds = 2.0, (0.3, 0.9)  # type: ignore[attr-defined]
    again = build_task("multilabel", ("a", "b"), record=task.record())
    outputs = torch.tensor([[0.4, 3.0], [-2.0, 6.0]])
    torch.testing.assert_close(again.probabilities(outputs), (outputs / 2).sigmoid())
    assert [again.label(row) for row in again.probabilities(outputs).tolist()] == ["a", "b"]
    assert again.per_class(outputs, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))["f1"] == [1.0, 1.0]
    assert build_task("multiclass", CLASSES).record() == {}
    for record in ({"temperature": 0.0}, {"temperature": float("nan")}, {"thresholds": [0.5]}):
        with pytest.raises(ValueError, match=r"temperature=|1 thresholds for 2 labels"):
            build_task("multilabel", ("a", "b"), record=record)
