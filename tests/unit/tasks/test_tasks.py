import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from headstart.errors import ConfigError, DataError
from headstart.tasks import build_task

CLASSES = tuple("abcdefgh")


def example(count: int = 200, classes: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(classes, (count,), generator=generator)
    outputs = torch.randn(count, classes, generator=generator)
    outputs[torch.arange(count), targets] += 0.7
    return outputs, targets


def test_metrics_are_those_of_scikit_learn() -> None:
    outputs, targets = example()
    values = build_task("multiclass", CLASSES).evaluate(outputs, targets)
    probabilities = outputs.softmax(1).double().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    predicted, truth = probabilities.argmax(1), targets.numpy()
    assert set(values) == {"loss", "acc", "f1", "auroc", "top5", "balanced_acc", "kappa", "ap"}
    assert values["acc"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-6)
    assert values["balanced_acc"] == pytest.approx(balanced_accuracy_score(truth, predicted), abs=1e-6)
    assert values["kappa"] == pytest.approx(cohen_kappa_score(truth, predicted), abs=1e-6)
    assert values["ap"] == pytest.approx(average_precision_score(np.eye(8)[truth], probabilities), abs=1e-6)
    assert values["f1"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-6)
    assert values["auroc"] == pytest.approx(roc_auc_score(truth, probabilities, multi_class="ovr"), abs=1e-6)
    assert values["top5"] == pytest.approx(top_k_accuracy_score(truth, probabilities, k=5), abs=1e-6)
    assert values["loss"] == pytest.approx(-np.log(probabilities[np.arange(200), truth]).mean(), abs=1e-6)


def test_binary_metrics_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(2, (100,), generator=generator)
    outputs = torch.randn(100, 1, generator=generator) + targets[:, None]
    task = build_task("binary", ("ant", "bee"))
    values = task.evaluate(outputs, targets)
    score = outputs[:, 0].sigmoid().numpy()
    assert task.outputs == 1
    assert set(values) == {"loss", "acc", "f1", "auroc", "balanced_acc", "kappa", "ap"}
    assert values["balanced_acc"] == pytest.approx(balanced_accuracy_score(targets, score > 0.5), abs=1e-6)
    assert values["kappa"] == pytest.approx(cohen_kappa_score(targets, score > 0.5), abs=1e-6)
    assert values["ap"] == pytest.approx(average_precision_score(targets, score), abs=1e-6)
    assert values["acc"] == pytest.approx(accuracy_score(targets, score > 0.5), abs=1e-6)
    assert values["f1"] == pytest.approx(f1_score(targets, score > 0.5, average="macro"), abs=1e-6)
    assert values["auroc"] == pytest.approx(roc_auc_score(targets, score), abs=1e-6)
    expected = -np.log(np.where(targets == 1, score, 1 - score)).mean()
    assert values["loss"] == pytest.approx(expected, abs=1e-5)


def test_two_classes_score_alike_as_softmax_and_as_sigmoid() -> None:
    outputs, targets = example(60, 2)
    softmax = build_task("multiclass", ("a", "b"))
    sigmoid = build_task("binary", ("a", "b"))
    single = (outputs[:, 1] - outputs[:, 0])[:, None]
    torch.testing.assert_close(softmax.probabilities(outputs), sigmoid.probabilities(single))
    assert softmax.evaluate(outputs, targets) == pytest.approx(sigmoid.evaluate(single, targets), abs=1e-5)


def test_classes_absent_from_a_split_are_left_out_without_a_warning() -> None:
    outputs, targets = example()
    few = targets < 3
    values = build_task("multiclass", CLASSES).evaluate(outputs[few], targets[few])
    probabilities = outputs[few].softmax(1).numpy()
    expected = [roc_auc_score(targets[few] == c, probabilities[:, c]) for c in range(3)]
    assert values["auroc"] == pytest.approx(float(np.mean(expected)), abs=1e-6)
    precisions = [average_precision_score(targets[few] == c, probabilities[:, c]) for c in range(3)]
    assert values["ap"] == pytest.approx(float(np.mean(precisions)), abs=1e-6)
    predicted = probabilities.argmax(1)
    assert set(predicted) - {0, 1, 2}  # classes that are not there are predicted all the same
    assert values["kappa"] == pytest.approx(cohen_kappa_score(targets[few], predicted), abs=1e-6)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert values["balanced_acc"] == pytest.approx(balanced_accuracy_score(targets[few], predicted), abs=1e-6)
    assert math.isfinite(values["f1"])


def assert_each_class(found: dict[str, list[float]], truth: np.ndarray, predicted: np.ndarray) -> None:
    """As scikit-learn counts, with NaN for what is not defined."""
    labels = list(range(len(found["support"])))
    expected = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=np.nan)
    assert list(found) == ["precision", "recall", "f1", "support"]
    for name, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(found[name], values, err_msg=name)


def test_each_class_is_scored_as_by_scikit_learn() -> None:
    outputs, targets = example()
    task = build_task("multiclass", CLASSES)
    assert_each_class(task.per_class(outputs, targets), targets.numpy(), outputs.argmax(1).numpy())
    few = targets < 3
    outputs[:, 7] = -9.0
    found = task.per_class(outputs[few], targets[few])
    assert_each_class(found, targets[few].numpy(), outputs[few].argmax(1).numpy())
    assert math.isnan(found["recall"][5])
    assert not math.isnan(found["f1"][5])  # it was predicted, which is wrong
    assert math.isnan(found["f1"][7])
    assert found["support"][3:] == [0] * 5
    single = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]])
    sigmoid = build_task("binary", ("ant", "bee")).per_class(single, torch.tensor([1, 0, 0, 1]))
    assert_each_class(sigmoid, np.array([1, 0, 0, 1]), np.array([1, 0, 1, 0]))


def test_each_label_is_scored_as_by_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(2)
    targets = (torch.rand(80, 4, generator=generator) < 0.3).float()
    outputs = torch.randn(80, 4, generator=generator) + targets
    targets[:, 2] = 0
    task = build_task("multilabel", CLASSES[:4])
    assert_each_class(task.per_class(outputs, targets), targets.numpy(), (outputs >= 0).numpy())
    expected = [average_precision_score(targets[:, c], outputs[:, c]) for c in (0, 1, 3)]
    assert task.evaluate(outputs, targets)["map"] == pytest.approx(float(np.mean(expected)), abs=1e-6)


def test_numbers_have_no_classes() -> None:
    task = build_task("regression", ("x",), train_targets=np.array([[0.0], [1.0]]))
    assert task.per_class(torch.zeros(2, 1), torch.zeros(2, 1)) == {}


def test_one_class_alone_has_no_auroc() -> None:
    outputs, _ = example(5)
    values = build_task("multiclass", CLASSES).evaluate(outputs, torch.zeros(5, dtype=torch.long))
    assert math.isnan(values["auroc"])
    assert math.isfinite(values["acc"])


def test_a_diverged_model_scores_nothing() -> None:
    outputs, targets = example(5)
    outputs[0, 0] = math.nan
    values = build_task("multiclass", CLASSES).evaluate(outputs, targets)
    assert set(values) == {"loss", "acc", "f1", "auroc", "top5", "balanced_acc", "kappa", "ap"}
    assert all(math.isnan(value) for value in values.values())


def test_five_classes_have_no_top5() -> None:
    outputs, targets = example(20, 5)
    assert "top5" not in build_task("multiclass", CLASSES[:5]).evaluate(outputs, targets)


def test_training_summary_is_the_accuracy() -> None:
    outputs, targets = example(50)
    expected = float((outputs.argmax(1) == targets).float().mean())
    assert build_task("auto", CLASSES).training_summary(outputs, targets) == {"acc": pytest.approx(expected)}


@pytest.mark.parametrize("count", [2, 3])
def test_auto_is_multiclass(count: int) -> None:
    task = build_task("auto", CLASSES[:count])
    assert (task.name, task.outputs, task.classes) == ("multiclass", count, CLASSES[:count])
    assert (task.monitor, task.monitor_mode) == ("val/acc", "max")


def test_balanced_weights_make_every_class_count_the_same() -> None:
    targets = [0] * 90 + [1] * 10
    task = build_task("multiclass", ("a", "b"), class_weights="balanced", train_targets=targets)
    assert task.class_weights is not None
    assert task.class_weights.tolist() == pytest.approx([100 / 180, 100 / 20])
    outputs = torch.tensor([[2.0, 0.0]] * 90 + [[2.0, 0.0]] * 10)
    loss = task.objective(outputs, torch.tensor(targets))
    each = torch.nn.functional.cross_entropy(outputs, torch.tensor(targets), reduction="none")
    torch.testing.assert_close(loss, (each[:90].mean() + each[90:].mean()) / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weights_and_smoothing_mean_the_same_for_one_output_and_for_two(smoothing: float) -> None:
    outputs, targets = example(30, 2)
    single = (outputs[:, 1] - outputs[:, 0])[:, None]
    for weights in ("none", [1.0, 1.0]):
        options = {"label_smoothing": smoothing, "class_weights": weights}
        two = build_task("multiclass", ("a", "b"), **options).objective(outputs, targets)  # type: ignore[arg-type]
        one = build_task("binary", ("a", "b"), **options).objective(single, targets)  # type: ignore[arg-type]
        torch.testing.assert_close(one, two)


def test_weights_of_one_output_are_of_the_targets_class() -> None:
    task = build_task("binary", ("a", "b"), class_weights=[1.0, 3.0])
    outputs, targets = torch.tensor([[0.3], [-0.8]]), torch.tensor([0, 1])
    each = torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float(), reduction="none")
    torch.testing.assert_close(task.objective(outputs, targets), (each[0] + 3 * each[1]) / 4)


@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel"])
def test_the_loss_is_plain_whatever_training_minimises(name: str) -> None:
    weighted = {"label_smoothing": 0.2, "class_weights": [1.0, 3.0]}
    plain, other = build_task(name, ("a", "b")), build_task(name, ("a", "b"), **weighted)  # type: ignore[arg-type]
    outputs = torch.tensor([[1.0, -0.5], [0.2, 2.0], [-1.0, 0.3]])[:, : plain.outputs]
    targets = torch.tensor([0, 1, 1]) if plain.one_class else torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert (plain.weighs, other.weighs) == (False, True)
    said, truth = plain.probabilities(outputs).double().numpy(), targets.numpy()
    if plain.one_class:
        expected = log_loss(truth, said / said.sum(axis=1, keepdims=True))
    else:
        expected = np.mean([log_loss(truth[:, c], said[:, c]) for c in (0, 1)])
    assert other.evaluate(outputs, targets)["loss"] == pytest.approx(expected, abs=1e-6)
    assert other.evaluate(outputs, targets) == plain.evaluate(outputs, targets)
    torch.testing.assert_close(plain.objective(outputs, targets), plain.loss(outputs, targets))
    assert float(other.objective(outputs, targets)) != pytest.approx(expected, abs=1e-3)


def test_a_class_without_training_images_is_no_division_by_zero() -> None:
    task = build_task("multiclass", ("a", "b", "c"), class_weights="balanced", train_targets=[0, 0, 1])
    assert task.class_weights is not None
    assert task.class_weights.tolist() == pytest.approx([0.5, 1.0, 0.0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "binary"}, "task=binary needs two classes"),
        ({"name": "ranking"}, "task=ranking is not one of"),
        ({"name": "auto", "class_weights": [1.0]}, "has 1 numbers for 8 classes"),
        ({"name": "auto", "class_weights": "equal"}, "class_weights=equal"),
        ({"name": "auto", "class_weights": "balanced"}, "needs the targets"),
        ({"name": "auto", "class_weights": [-1.0] * 8}, "not negative"),
        ({"name": "auto", "label_smoothing": 1.0}, "label_smoothing=1.0"),
    ],
)
def test_impossible_choices_are_refused(options: dict[str, object], said: str) -> None:
    name = options.pop("name")
    with pytest.raises(ConfigError, match=said):
        build_task(name, CLASSES, **options)  # type: ignore[arg-type]


def test_one_class_is_no_classification() -> None:
    with pytest.raises(DataError, match="at least two"):
        build_task("auto", ("only",))


def test_regression_keeps_small_differences_of_large_numbers():
    times = 1_700_000_000.0 + np.arange(8, dtype=np.float64)[:, None]
    task = build_task("regression", ("time",), train_targets=times)
    targets = torch.from_numpy(times)
    outputs = torch.from_numpy((times - times.mean()) / times.std()).float()
    assert float(task.loss(outputs, targets)) < 1e-10
    assert float(task.loss(torch.zeros(8, 1), targets)) == pytest.approx(1.0, abs=1e-6)
    assert task.evaluate(outputs, targets)["mae"] < 1e-3
    assert build_task("regression", ("time",), record=task.record()).evaluate(outputs, targets)["mae"] < 1e-3


@pytest.mark.parametrize("value", [1234.567, 0.1, 0.3])
def test_regression_refuses_what_is_the_same_but_for_the_rounding_of_its_mean(value: float):
    with pytest.raises(ConfigError, match="on every training image"):
        build_task("regression", ("a",), train_targets=np.full((77, 1), value))


def test_regression_refuses_what_is_the_same_on_every_image():
    targets = np.array([[1.0, 7.0], [2.0, 7.0]])
    with pytest.raises(ConfigError, match="b is 7 on every training image"):
        build_task("regression", ("a", "b"), train_targets=targets)


@pytest.mark.parametrize(
    ("name", "monitor", "mode"), [("multiclass", "val/acc", "max"), ("multilabel", "val/map", "max")]
)
def test_another_metric_may_choose_and_knows_its_direction(name: str, monitor: str, mode: str) -> None:
    task = build_task(name, ("a", "b"))
    assert (task.monitor, task.monitor_mode) == (monitor, mode)
    task.choose_by("val/loss")
    assert (task.monitor, task.monitor_mode) == ("val/loss", "min")
    with pytest.raises(ConfigError, match=r"val/recall is not logged with task=.*val/f1"):
        task.choose_by("val/recall")
    assert build_task(name, ("a", "b")).monitor == monitor
