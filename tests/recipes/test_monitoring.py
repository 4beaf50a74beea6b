"""The metric that chooses: one choice, followed by whatever trains the head."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.config import compose, resolve_run
from headstart.errors import ConfigError
from headstart.execution.together import train_together
from headstart.runs.directory import RunDirectory
from headstart.runs.result import read_metrics_csv

#: With such a rate the accuracy is best in one epoch and the loss in another.
RESTLESS = ("seed=2", "optimizer.lr=0.01", "scheduler=none", "trainer.max_epochs=8")
BY_LOSS = "callbacks.checkpoint.monitor=val/loss"


def curve(run: RunDirectory, name: str) -> np.ndarray:
    return np.array([row[name] for row in read_metrics_csv(run.metrics_file)], dtype=float)


def test_the_best_epoch_is_that_of_the_metric_asked_for(train: Callable):
    usual, asked = train(*RESTLESS), train(*RESTLESS, BY_LOSS)
    assert usual.result.details["monitor"] == "val/acc"
    assert asked.result.details["monitor"] == "val/loss"
    assert usual.result.fingerprint != asked.result.fingerprint
    losses, scores = curve(asked.run, "val/loss"), curve(asked.run, "val/acc")
    assert scores[losses.argmin()] < scores.max()  # else this would show nothing
    assert asked.result.details["best_epoch"] == losses.argmin()
    assert asked.result.metrics["val/loss"] == pytest.approx(losses.min(), rel=1e-5)
    assert usual.result.metrics["val/acc"] == pytest.approx(scores.max(), abs=1e-6)


def test_early_stopping_waits_for_the_metric_asked_for(train: Callable):
    patient = ("callbacks.early_stopping.enabled=true", "callbacks.early_stopping.patience=1")
    run, result = train(*RESTLESS, BY_LOSS, *patient)
    losses = curve(run, "val/loss")
    assert result.details["epochs"] == len(losses) < 8
    assert losses[-1] >= losses[:-1].min()
    assert (np.diff(losses[:-1]) < 0).all()


def test_heads_that_are_trained_together_follow_it_too(tiny: tuple[str, ...], tmp_path: Path):
    place = f"paths.output_dir={tmp_path}"
    choices = [(*tiny, *RESTLESS, place), (*tiny, *RESTLESS, BY_LOSS, place)]
    runs = [resolve_run(compose(list(chosen))) for chosen in choices]
    train_together(runs, lambda run, reason: pytest.fail(reason))
    usual, asked = (resolved.directory() for resolved in runs)
    losses = curve(asked, "val/loss")
    assert asked.result().details["monitor"] == "val/loss"
    assert asked.result().details["best_epoch"] == losses.argmin() != usual.result().details["best_epoch"]
    assert asked.result().metrics["val/loss"] == pytest.approx(losses.min(), abs=1e-3)


def test_a_head_in_closed_form_is_chosen_by_it(train: Callable):
    solved = train("head=logreg", "head.l2=[100,1,0.01]", BY_LOSS).result.details["closed_form"]
    assert solved["value"] == min(solved["path"], key=lambda entry: entry["val/loss"])["l2"]
    assert len({entry["val/loss"] for entry in solved["path"]}) == 3


def test_a_metric_that_the_task_does_not_log_ends_before_training(train: Callable, tmp_path: Path):
    with pytest.raises(ConfigError) as said:
        train("callbacks.checkpoint.monitor=val/fl")
    assert "callbacks.checkpoint.monitor=val/fl is not logged with task=multiclass" in str(said.value)
    assert "val/loss, val/acc, val/f1" in str(said.value)
    assert "did you mean val/f1?" in str(said.value)
    assert not list(tmp_path.rglob("metrics.csv"))
    with pytest.raises(ConfigError, match="a metric of validation, such as val/f1"):
        train("callbacks.checkpoint.monitor=test/acc")


def test_a_training_that_stopped_early_does_not_go_on_when_it_is_resumed(train: Callable):
    choices = (
        "strategy=full",
        "trainer.max_epochs=6",
        "callbacks.early_stopping.enabled=true",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=0.9",
    )
    stopped = train(*choices)
    assert stopped.result.details["epochs"] == 2
    (stopped.run.path / "result.json").unlink()  # as after a kill while it was scored
    resumed = train(*choices)
    assert resumed.result.details["epochs"] == 2
    assert resumed.result.metrics == stopped.result.metrics


def test_a_plateau_begins_anew_with_a_phase_that_restarts_the_schedule(train: Callable):
    choices = ("strategy=lp_ft", "strategy.probe_epochs=4", "trainer.max_epochs=5", "optimizer.lr=0.1")
    run = train(*choices, "scheduler=plateau", "scheduler.patience=0", "scheduler.warmup_epochs=0").run
    rates = [row["lr/head"] for row in read_metrics_csv(run.metrics_file)]
    assert rates[3] < rates[0] == pytest.approx(1.0)  # ten times the rate given
    assert rates[4] == pytest.approx(0.03)


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
def test_a_plateau_of_an_epoch_that_is_not_validated_waits(train: Callable):
    short = train("strategy=full", "scheduler=plateau", "trainer.max_steps=1")
    assert short.result.status == "done"


def test_a_warm_up_that_a_phase_has_no_room_for_is_refused(train: Callable):
    choices = ("strategy=lp_ft", "strategy.probe_epochs=2", "trainer.max_epochs=8", "scheduler.warmup_epochs=5")
    with pytest.raises(ConfigError, match=r"warmup_epochs=5 exceeds the 2 epochs from the start of phase 'probe'"):
        train(*choices)
