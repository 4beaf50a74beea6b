"""Runs are found and read, whatever state they are in."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from headstart.errors import RunError
from headstart.runs.reader import RunRecord, read_config, read_predictions, read_runs, value_text

if TYPE_CHECKING:
    from conftest import StudyWriter


def test_every_state_is_told_apart(writer: "StudyWriter") -> None:
    done = writer.run("freeze", 1)
    failed = writer.failed("full", "RuntimeError: out of memory")
    partial = writer.partial("lp_ft", 3)
    broken = writer.run("scratch", 1)
    (broken / "result.json").write_text("{")
    (done / "checkpoints").mkdir()
    found = {run.path: run for run in read_runs(writer.root)}
    assert {path: run.status for path, run in found.items()} == {
        done: "done",
        failed: "failed",
        partial: "partial",
        broken: "unreadable",
    }
    assert found[done].reason == ""
    assert found[failed].reason == "RuntimeError: out of memory"
    assert "3 epochs" in found[partial].reason
    assert "not valid JSON" in found[broken].reason


def test_runs_are_found_below_and_a_run_is_itself_a_study(writer: "StudyWriter") -> None:
    path = writer.run("freeze", 1)
    (writer.root / "report").mkdir()
    assert [run.path for run in read_runs(writer.root.parent)] == [path]
    assert [run.path for run in read_runs(path)] == [path]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a folder"):
        read_runs(tmp_path / "nowhere")


def test_choices_costs_and_files_of_a_run(writer: "StudyWriter") -> None:
    writer.run("freeze", 7, shots=5)
    run = read_runs(writer.root)[0]
    assert run.seed == "7"
    assert run.choices["datamodule.shots"] == 5
    assert run.costs["trainable_parameters"] == 5130
    assert run.costs["stored_bytes"] == 4 * 5130
    assert [stage for stage, _ in run.drift] == ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert [row["epoch"] for row in run.history] == list(range(8))
    predictions = run.predictions("test")
    assert predictions is not None
    accuracy = (predictions.probabilities.argmax(axis=1) == predictions.targets).mean()
    assert accuracy == pytest.approx(run.metrics["test/acc"])
    assert list(predictions.ids) == sorted(predictions.ids)


def test_damaged_parts_are_named_and_absent(writer: "StudyWriter", caplog: pytest.LogCaptureFixture) -> None:
    path = writer.run("freeze", 1)
    for name in ("predictions_test.npz", "audit.json", "config.yaml", "metrics.csv"):
        (path / name).write_bytes(b"\xff: [")
    result = json.loads((path / "result.json").read_text())
    result["metrics"]["test/auroc"] = None
    (path / "result.json").write_text(json.dumps(result))
    run = read_runs(writer.root)[0]
    assert run.predictions("test") is None
    assert run.predictions("nothing") is None
    assert run.drift == []
    assert run.composed == {}
    assert run.history == []
    for name in ("predictions_test.npz", "audit.json", "config.yaml", "metrics.csv"):
        assert f"{name} cannot be read" in caplog.text
    assert "test/auroc" not in run.metrics


def test_overrides_as_a_list_are_choices(writer: "StudyWriter") -> None:
    writer.run("freeze", 1, config={"overrides": ["optimizer.lr=0.010", "+extra.key=x"]})
    choices = read_runs(writer.root)[0].choices
    assert choices["optimizer.lr"] == "0.010"
    assert choices["extra.key"] == "x"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "format 99"),
        ({"metrics": ["val/acc"]}, "metrics should be a mapping"),
        ({"cost": {"fit_seconds": "long"}}, "cost.fit_seconds should be a number"),
        ({"data": {"name": "d", "fingerprint": "f", "classes": [], "sizes": 3}}, "data.sizes should be a mapping"),
        ({"params": {}}, "lacks params.total, params.trainable"),
    ],
)
def test_a_run_with_an_odd_result_is_unreadable_and_says_why(
    writer: "StudyWriter", change: dict[str, object], words: str
) -> None:
    writer.run("freeze", 1, result=change)
    (run,) = read_runs(writer.root)
    assert run.status == "unreadable"
    assert run.reason.startswith("result.json ")
    assert words in run.reason
    assert (run.metrics, run.costs, run.choices) == ({}, {}, {})


def test_a_run_that_cannot_be_resumed_is_unreadable(writer: "StudyWriter") -> None:
    path = writer.partial("full", 2)
    for text in ("{", "[]", '{"attempts": [{}]}'):
        (path / "attempts.json").write_text(text)
        (run,) = read_runs(writer.root)
        assert run.status == "unreadable"
        assert "attempts.json" in run.reason


@pytest.mark.parametrize("text", ["a: [", "- a", "!!python/object/apply:os.system [touch executed]", "\t\x00"])
def test_a_damaged_configuration_is_named_and_runs_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunError, match=r"config\.yaml"):
        read_config(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"ids": np.array(["a"])},
        {"targets": np.array([0, 9])},
        {"targets": np.array(["x", "y"])},
        {"probabilities": np.ones(2)},
        {"classes": np.array([object()])},
    ],
)
def test_predictions_that_do_not_fit_together_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    parts = {"ids": ["a", "b"], "targets": [1, 0], "probabilities": np.eye(2), "classes": ["x", "y"]}
    path = tmp_path / "predictions_val.npz"
    np.savez(path, **parts)
    assert read_predictions(path).targets.tolist() == [1, 0]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RunError, match=r"predictions_val\.npz cannot be read"):
        read_predictions(path)
    np.savez(path, **parts | change)
    with pytest.raises(RunError, match=r"predictions_val\.npz"):
        read_predictions(path)


def test_numbers_and_labels_are_no_predictions_of_classes(tmp_path: Path) -> None:
    parts = {"ids": ["a", "b"], "targets": [[0.5], [2.0]], "probabilities": [[0.4], [2.5]], "classes": ["age"]}
    np.savez(tmp_path / "predictions_val.npz", **parts)
    assert read_predictions(tmp_path / "predictions_val.npz").targets.tolist() == [[0.5], [2.0]]
    assert RunRecord(tmp_path, "done").predictions("val") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1", "1"),
        ("0.010", "0.01"),
        (1e-3, "0.001"),
        (None, "null"),
        (True, "true"),
        ([1, "a"], '[1, "a"]'),
    ],
)
def test_equal_choices_have_equal_text(value: object, text: str) -> None:
    assert value_text(value) == text


def test_reading_needs_neither_torch_nor_numpy() -> None:
    heavy = ("torch", "numpy", "pandas", "matplotlib")
    code = f"import sys, headstart.runs.reader; print([n for n in {heavy} if n in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
