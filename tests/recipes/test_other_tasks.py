"""Numbers and several labels end to end, and weights from one run to the next."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from headstart.commands.predict import main as predict
from headstart.runs.result import read_metrics_csv


@pytest.fixture
def tables(tmp_path: Path) -> Callable[[str], Path]:
    """Sixty images whose brightness and redness can be seen; tables of numbers and of labels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    lines: dict[str, list[str]] = {"numbers": ["path,brightness,redness"], "labels": ["path,labels"]}
    for number in range(60):
        red, rest = rng.uniform(0, 255, 2)
        pixels = np.clip(np.array([red, rest, rest]) + rng.normal(0, 10, (24, 24, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        brightness = pixels.mean() / 10
        lines["numbers"].append(f"{number:02d}.png,{brightness:.3f},{red:.3f}")
        names = [name for name, there in (("bright", brightness > 12), ("red", red > 128)) if there]
        lines["labels"].append(f"{number:02d}.png,{'|'.join(names)}")
    for name, content in lines.items():
        (folder / f"{name}.csv").write_text("\n".join(content) + "\n")
    return lambda name: folder / f"{name}.csv"


def data(table: Path, task: str) -> tuple[str, ...]:
    return (
        f"datamodule.manifest={table}",
        f"task={task}",
        "datamodule.augment=none",
        "datamodule.test_fraction=0.2",
        "trainer.max_epochs=6",
        "optimizer.lr=1e-3",
    )


@pytest.fixture
def train_table(train):
    """Trains on a table in place of the embedded digits."""

    def run(table: Path, task: str, *overrides: str):
        # The digits' own choices come first; what follows wins.
        removed = ("datamodule=csv", "datamodule.shots=null", "datamodule.val_fraction=0.2")
        return train(*removed, *data(table, task), *overrides)

    return run


@pytest.mark.parametrize("strategy", ["freeze", pytest.param("full", marks=pytest.mark.slow)])
def test_numbers_are_learnt_stored_drawn_and_predicted(train_table, tables, strategy: str, tmp_path: Path):
    run, result = train_table(tables("numbers"), "regression", f"strategy={strategy}", "callbacks.plots=true")
    assert result.data["classes"] == ["brightness", "redness"]
    assert result.details["monitor"] == "val/nrmse"
    assert result.cache["used"] is (strategy == "freeze")
    rows = read_metrics_csv(run.metrics_file)
    assert min(row["val/nrmse"] for row in rows) == pytest.approx(result.metrics["val/nrmse"], rel=1e-4)
    assert rows[-1]["train/loss"] < 0.7 * rows[0]["train/loss"]
    with np.load(run.predictions_file("test")) as stored:
        errors = stored["probabilities"] - stored["targets"]
        ids = stored["ids"].tolist()
        values = stored["probabilities"]
    assert result.metrics["test/rmse"] == pytest.approx(np.sqrt((errors**2).mean(0)).mean(), rel=1e-4)
    assert result.metrics["test/mae_redness"] == pytest.approx(np.abs(errors[:, 1]).mean(), rel=1e-4)
    pictures = {path.name for path in run.plots.iterdir()}
    assert {"predicted_vs_true_1_brightness.png", "predicted_vs_true_2_redness.png"} <= pictures
    assert not pictures & {"confusion.png", "confident_errors.png"}

    output = tmp_path / "out.csv"
    assert predict([str(run.path), str(tables("numbers").parent / ids[0]), "--output", str(output)]) == 0
    with output.open() as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["path", "brightness", "redness"]
    np.testing.assert_allclose([float(row["brightness"]), float(row["redness"])], values[0], rtol=1e-3, atol=1e-2)


def test_several_labels_are_learnt_and_predicted(train_table, tables, tmp_path: Path):
    run, result = train_table(tables("labels"), "multilabel", "strategy=full", "loss.class_weights=balanced")
    thresholds = dict(zip(("bright", "red"), result.details["task_record"]["thresholds"], strict=True))
    with np.load(run.predictions_file("val")) as stored:
        given = stored["probabilities"].astype(np.float64) >= list(thresholds.values())
        assert result.metrics["val/f1"] == pytest.approx(f1_score(stored["targets"], given, average="macro"), abs=1e-6)
        usual = f1_score(stored["targets"], stored["probabilities"] >= 0.5, average="macro", zero_division=0)
    assert result.metrics["val/f1"] >= usual - 1e-6
    assert result.data["classes"] == ["bright", "red"]
    assert result.details["monitor"] == "val/map"
    assert result.metrics["val/map"] > 0.75
    output = tmp_path / "out.csv"
    assert predict([str(run.path), str(tables("labels").parent), "--output", str(output)]) == 0
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "labels", "probability/bright", "probability/red"]
    for row in rows:
        said = {name for name, least in thresholds.items() if float(row[f"probability/{name}"]) >= least}
        assert set(filter(None, row["labels"].split("|"))) == said


def test_one_threshold_for_all_labels_may_be_kept(train_table, tables):
    result = train_table(tables("labels"), "multilabel", "trainer.max_epochs=1", "thresholds=0.5").result
    assert result.details["task_record"] == {"thresholds": [0.5, 0.5]}


def test_what_is_trained_in_one_run_is_where_the_next_begins(train, tmp_path: Path):
    small = ("backbone=timm", "backbone.name=test_resnet", "trainer.max_epochs=1", "head=linear")
    first, source = train(
        *small, "backbone.weights=none", "strategy=full", "datamodule.classes=[0,1,2]", "export=true", output="source"
    )
    card = json.loads((first.path / "export.json").read_text())
    assert card["metrics"]["val/acc"] == source.metrics["val/acc"]
    assert card["data"]["fingerprint"] == source.data["fingerprint"]
    second = train(*small, f"backbone.weights={tmp_path / 'source' / 'runs'}", "strategy=freeze", output="target")
    assert second.result.weights["sha256"] == card["sha256"]
    assert not second.result.weights["missing"]
    assert second.result.details["input_spec"] == card["input_spec"]
    again, _ = train(
        *small, "backbone.weights=none", "strategy=full", "datamodule.classes=[0,1,2]", "export=true", output="source"
    )
    assert again.path == first.path
