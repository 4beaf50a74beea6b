"""Confidence after training: fitted to validation, and in everything that is made of the run."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.commands.export import main as export
from headstart.commands.predict import main as predict
from headstart.config import compose, resolve_run
from headstart.errors import ConfigError
from headstart.execution.together import train_together
from headstart.runs.result import Result

#: Much too sure of itself.
SURE = ("optimizer.lr=0.01", "scheduler=none", "trainer.max_epochs=4")
CALIBRATED = "calibrate=temperature"


def check(result: Result, plain: Result) -> None:
    """A calibrated run against the same one as it was."""
    told = result.details["calibration"]
    assert told["temperature"] == result.details["task_record"]["temperature"] > 1.2
    for split in ("val", "test"):
        assert told[split]["loss_before"] == pytest.approx(plain.metrics[f"{split}/loss"], rel=1e-4)
        assert told[split]["loss"] == pytest.approx(result.metrics[f"{split}/loss"])
        assert told[split]["loss"] < told[split]["loss_before"]
        assert told[split]["ece"] < told[split]["ece_before"]
        assert result.metrics[f"{split}/acc"] == plain.metrics[f"{split}/acc"]
    assert plain.details["task_record"] == {}
    assert result.details["best_epoch"] == plain.details["best_epoch"]


def test_the_temperature_goes_wherever_the_model_goes(train: Callable, image_folder: Callable, tmp_path: Path):
    root = image_folder(classes=("ant", "bee", "crab"), splits={"train": 6, "val": 8, "test": 5}, size=40)
    confused = ("optimizer.lr=0.05", "scheduler=none", "trainer.max_epochs=2", "strategy=freeze")
    run, result = train(*confused, CALIBRATED, root=root)
    factor = result.details["calibration"]["temperature"]
    assert factor != pytest.approx(1.0, abs=0.02)
    model = headstart.load(run.path)
    assert model.task.temperature == factor
    with np.load(run.predictions_file("test")) as stored:
        found = model.predict([root / name for name in stored["ids"]], device="cpu")
        np.testing.assert_allclose([one.probabilities for one in found], stored["probabilities"], atol=1e-4)
    assert export([str(run.path), "--format", "hf"]) == 0  # which compares plain timm with the run's model
    (card,) = (run.path / "export").rglob("headstart.json")
    assert json.loads(card.read_text())["temperature"] == factor


def test_heads_trained_together_are_calibrated_one_by_one(train: Callable, tiny: tuple[str, ...], tmp_path: Path):
    place = f"paths.output_dir={tmp_path / 'together'}"
    kinds = ((), (CALIBRATED,), ("optimizer.lr=0.03", CALIBRATED))
    runs = [resolve_run(compose([*tiny, *SURE, *kind, place])) for kind in kinds]
    train_together(runs, lambda run, reason: pytest.fail(reason))
    plain, calibrated, other = (run.directory().result() for run in runs)
    check(calibrated, plain)
    assert other.details["calibration"]["temperature"] != calibrated.details["calibration"]["temperature"]
    alone = train(*SURE, CALIBRATED).result
    assert alone.fingerprint == calibrated.fingerprint != plain.fingerprint
    assert alone.metrics["val/loss"] == pytest.approx(calibrated.metrics["val/loss"], abs=1e-3)
    assert alone.details["calibration"]["temperature"] == pytest.approx(
        calibrated.details["calibration"]["temperature"], rel=1e-2
    )


def test_a_head_in_closed_form_is_calibrated_on_images_that_it_has_not_seen(train: Callable):
    plain, calibrated = train("head=ncm").result, train("head=ncm", CALIBRATED).result
    assert calibrated.metrics["val/loss"] < plain.metrics["val/loss"]
    assert calibrated.metrics["val/acc"] == plain.metrics["val/acc"]


def test_predict_gives_no_class_where_it_would_be_wrong_too_often(
    train: Callable, image_folder: Callable, tmp_path: Path, capsys
):
    root = image_folder(classes=("ant", "bee", "crab"), splits={"train": 6, "val": 12}, size=40)
    run, _ = train("strategy=freeze", "trainer.max_epochs=1", "optimizer.lr=1e-4", root=root)
    with np.load(run.predictions_file("val")) as stored:
        sure, right = stored["probabilities"].max(1), stored["probabilities"].argmax(1) == stored["targets"]
        names = list(stored["ids"])
    errors = np.cumsum(~right[sure.argsort()[::-1]]) / np.arange(1, len(right) + 1)
    allowed = errors[4:].min()
    assert allowed < errors[-1]  # so that there is something to withhold
    output = tmp_path / "out.csv"
    asked = [str(run.path), str(root / "val"), "--output", str(output), "--device", "cpu", "--max-error", str(allowed)]
    assert predict(asked) == 0
    with output.open(newline="") as file:
        rows = {Path(row["path"]).relative_to(root).as_posix(): row["class"] for row in csv.DictReader(file)}
    given = np.array([bool(rows[name]) for name in names])
    assert 0 < given.sum() < len(given)
    assert (~right[given]).mean() <= allowed
    assert sure[given].min() > sure[~given].max()
    said = capsys.readouterr().err
    assert f"{(~given).sum()} of them got no class" in said
    assert f"to {given.mean():.1%} of the images" in said


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            ("task=regression", CALIBRATED, "datamodule=csv", "datamodule.manifest=x.csv"),
            "which task=regression has none",
        ),
        (("thresholds=0.5",), "thresholds=0.5 has an effect with task=multilabel only"),
        (("task=multilabel", "thresholds=1.5"), "thresholds=1.5: must be validation or a number above 0 and below 1"),
        (("calibrate=platt",), "calibrate=platt: must be none or temperature"),
    ],
)
def test_what_has_no_meaning_is_said(choices: tuple[str, ...], said: str):
    with pytest.raises(ConfigError, match=said):
        resolve_run(compose(list(choices)))
