"""Runs are found and read, whatever state they are in."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headstart.errors import RunError
from headstart.study.collect import find_runs, run_rows, value_text, write_rows

if TYPE_CHECKING:
    from conftest import StudyWriter


def test_every_state_is_told_apart(writer: "StudyWriter") -> None:
    done = writer.run("freeze", 1)
    failed = writer.failed("full", "RuntimeError: out of memory")
    partial = writer.partial("lp_ft", 3)
    broken = writer.run("scratch", 1)
    (broken / "result.json").write_text("{")
    (done / "checkpoints").mkdir()
    found = {run.path: run for run in find_runs(writer.root)}
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
    assert [run.path for run in find_runs(writer.root.parent)] == [path]
    assert [run.path for run in find_runs(path)] == [path]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a folder"):
        find_runs(tmp_path / "nowhere")


def test_choices_costs_and_files_of_a_run(writer: "StudyWriter") -> None:
    writer.run("freeze", 7, shots=5)
    run = find_runs(writer.root)[0]
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


def test_damaged_parts_are_absent_and_not_fatal(writer: "StudyWriter") -> None:
    path = writer.run("freeze", 1)
    for name in ("predictions_test.npz", "audit.json", "config.yaml"):
        (path / name).write_bytes(b"\xff: [")
    result = json.loads((path / "result.json").read_text())
    result["metrics"]["test/auroc"] = None
    (path / "result.json").write_text(json.dumps(result))
    run = find_runs(writer.root)[0]
    assert run.predictions("test") is None
    assert run.predictions("nothing") is None
    assert run.drift == []
    assert run.composed == {}
    assert "test/auroc" not in run.metrics


def test_overrides_as_a_list_are_choices(writer: "StudyWriter") -> None:
    writer.run("freeze", 1, config={"overrides": ["optimizer.lr=0.010", "+extra.key=x"]})
    choices = find_runs(writer.root)[0].choices
    assert choices["optimizer.lr"] == "0.010"
    assert choices["extra.key"] == "x"


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


def test_runs_csv_has_a_row_per_run(writer: "StudyWriter", tmp_path: Path) -> None:
    writer.study(["freeze", "full"], [1, 2])
    writer.failed("lora", 'ValueError: a, "quoted"\nmessage')
    write_rows(tmp_path / "runs.csv", run_rows(find_runs(writer.root)))
    with (tmp_path / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    failed = next(row for row in rows if row["status"] == "failed")
    assert failed["reason"] == 'ValueError: a, "quoted"\nmessage'
    full = next(row for row in rows if row["strategy"] == "full" and row["seed"] == "2")
    assert 0 < float(full["test/acc"]) < 1
    assert full["weights_source"] == "bundled"


def test_collecting_needs_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, headstart.study.collect; print([n for n in ('torch', 'pandas', 'matplotlib') if n in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
