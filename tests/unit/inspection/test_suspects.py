"""Labels that are wrong are found by what models say that were not trained on them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.errors import RunError
from headstart.inspection.suspects import Judged, data_of, judge, suspects
from headstart.runs.reader import RunRecord
from headstart.runs.result import Result
from headstart.transferability.examples import Labelled
from headstart.transferability.scores_probe import logistic, logistic_probabilities

CLASSES = ("ant", "bee", "cat")


def blobs(images: int = 300, wrong: int = 30) -> tuple[Labelled, np.ndarray, np.ndarray]:
    """Features around the mean of their class, with some labels changed; labels, and which are wrong."""
    rng = np.random.default_rng(0)
    truth = np.arange(images) % len(CLASSES)
    features = rng.normal(size=(images, 16)) + 6 * np.eye(16)[truth]
    planted, labels = np.sort(rng.permutation(images)[:wrong]), truth.copy()
    labels[planted] = (labels[planted] + 1 + rng.integers(0, 2, wrong)) % len(CLASSES)
    return Labelled.of(features, labels), labels, planted


def test_planted_wrong_labels_come_first():
    data, labels, planted = blobs()
    values = logistic_probabilities(data)
    assert np.allclose(values.sum(axis=1), 1)
    assert (logistic(data) == (values.argmax(axis=1) == labels)).all()
    found = suspects(Judged([f"{n:03d}" for n in range(len(labels))], labels, values, CLASSES, "classes", "probe"))
    first = {int(one.image) for one in found[: len(planted)]}
    assert len(first & set(planted.tolist())) >= 0.95 * len(planted)
    assert [one.loss for one in found] == sorted((one.loss for one in found), reverse=True)
    row = found[0].row()
    assert row["label"] == CLASSES[labels[int(found[0].image)]] != row["predicted"]
    assert np.isclose(-np.log(found[0].probability or 0), found[0].loss)
    assert row["correct_label"] == ""


def test_labels_and_numbers_have_their_own_losses():
    targets = np.array([[1, 0], [0, 1], [1, 1]])
    values = np.array([[0.9, 0.2], [0.8, 0.4], [0.6, 0.3]])
    found = suspects(Judged(["a", "b", "c"], targets, values, ("x", "y"), "labels", ""))
    assert [(one.image, one.label, one.said) for one in found] == [("b", "y", "x"), ("c", "x|y", "x")]
    assert found[0].loss == pytest.approx(-np.log(0.2) - np.log(0.4))
    assert found[0].probability == pytest.approx(0.2)
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(50, 1))
    said = numbers + rng.normal(scale=0.1, size=(50, 1))
    numbers[7] += 5
    (only, *_) = suspects(Judged([str(n) for n in range(50)], numbers, said, ("age",), "values", ""))
    assert (only.image, only.probability) == ("7", None)
    assert only.label == f"{numbers[7, 0]:.6g}"


@pytest.fixture
def folds(tmp_path: Path, finished: Callable[..., Result]) -> Callable[..., list[RunRecord]]:
    """Runs of a cross-validation over 30 images of which number 4 is labelled wrongly."""

    def write(**data: Any) -> list[RunRecord]:
        runs = []
        for fold in range(3):
            ids = np.array([f"{number:02d}" for number in range(fold, 30, 3)])
            truth = np.array([int(name) % 2 for name in ids])
            labels = np.where(ids == "04", 1 - truth, truth)
            path = tmp_path / f"run{fold}"
            path.mkdir()
            about = {"name": "x", "content": "c", "folds": 3, "fold": fold, "split_seed": 0, "classes": ["ant", "bee"]}
            result = finished(data=about | data, details={"task": "binary"})
            column = np.where(truth[:, None] == 1, 0.9, 0.1)
            np.savez(path / "predictions_test.npz", ids=ids, targets=labels, probabilities=column, classes=CLASSES[:2])
            runs.append(RunRecord(path, "done", "", result))
        return runs

    return write


def test_each_fold_is_judged_by_the_run_that_left_it_out(folds: Callable[..., list[RunRecord]]):
    judged = judge(folds(), None)  # type: ignore[arg-type]  # folds need no data
    assert len(judged.ids) == 30
    (found,) = suspects(judged)
    assert (found.image, found.label, found.said) == ("04", "bee", "ant")
    assert found.probability == pytest.approx(0.1)


def test_what_says_nothing_of_an_image_is_told(folds: Callable[..., list[RunRecord]]):
    runs = folds()
    with pytest.raises(RunError, match=r"lack fold 1 of 3; .*datamodule.fold=1"):
        judge([runs[0], runs[2]], None)  # type: ignore[arg-type]
    other = replace(runs[1], result=replace(runs[1].result, data=runs[1].result.data | {"content": "other"}))
    with pytest.raises(RunError, match=r"differs from .* in content of its data"):
        judge([runs[0], other, runs[2]], None)  # type: ignore[arg-type]
    single = [replace(run, result=replace(run.result, data={"folds": None})) for run in runs]
    with pytest.raises(RunError, match="are no cross-validation"):
        judge(single, None)  # type: ignore[arg-type]
    masks = replace(runs[0], result=replace(runs[0].result, details={"task": "segmentation"}))
    with pytest.raises(RunError, match="which masks have none of"):
        judge([masks], None)  # type: ignore[arg-type]


@pytest.mark.parametrize("said", [{}, {"task": "binary", "input_spec": {"height": "x"}}])
def test_a_run_that_does_not_say_what_its_network_sees_is_told(
    tmp_path: Path, finished: Callable[..., Result], said: dict[str, Any]
):
    (tmp_path / "config.yaml").write_text("datamodule: {_target_: headstart.data.Digits, batch_size: 4}")
    with pytest.raises(RunError, match="does not say what its network sees"):
        data_of(RunRecord(tmp_path, "done", "", finished(details=said)))
