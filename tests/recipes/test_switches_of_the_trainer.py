"""What Lightning's switches leave of the data: refused before training, or marked in the result."""

import re

import pytest

from headstart.errors import ConfigError, DivergedError, RunError
from headstart.runs.directory import find_runs
from headstart.runs.result import read_result
from headstart.study.report import write_report


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.limit_val_batches=0.01"], "trainer.limit_val_batches=0.01 leaves none of the 3 val batches; give"),
        (["trainer.limit_train_batches=0.01"], "trainer.limit_train_batches=0.01 leaves none of the 3 train batches"),
        (["trainer.limit_test_batches=0.1"], "leaves none of the 3 test batches; give a share of at least 0.334, or"),
        (["trainer.overfit_batches=0.1"], "trainer.overfit_batches=0.1 leaves none of the 3"),
        (["trainer.val_check_interval=100"], "trainer.val_check_interval=100 exceeds the 3 training batches"),
        (
            ["strategy=full", "datamodule.batch_size=79"],
            "datamodule.batch_size=79 leaves a batch of one image of 80, for which BatchNorm has no variance",
        ),
    ],
)
def test_what_leaves_too_little_is_refused_before_training(train, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        train(*overrides)
    (run,) = find_runs(tmp_path / "outputs")
    assert not (run / "metrics.csv").exists()


def test_the_share_that_is_asked_for_is_enough(train):
    assert train("trainer.limit_test_batches=0.334", "trainer.max_epochs=1").result.status == "done"


@pytest.mark.parametrize(
    "overrides",
    [
        ["datamodule.drop_last=true"],
        pytest.param(["batchnorm=eval"], marks=pytest.mark.slow),
        # The last layer sees four values of one image.
        pytest.param(["datamodule.image_size=64"], marks=pytest.mark.slow),
        ["strategy=freeze"],
    ],
)
def test_one_image_in_the_last_batch_is_no_matter_where_nothing_normalises_it(train, overrides):
    choices = ["strategy=full", "datamodule.batch_size=79", "trainer.max_epochs=1", *overrides]
    assert train(*choices).result.status == "done"


@pytest.mark.slow
def test_a_run_that_was_cut_short_is_marked_and_kept_out_of_comparisons(train, tmp_path, capsys):
    train("strategy=freeze", "seed=1")
    train("strategy=full", "seed=1")
    short = [
        (train("strategy=full", "seed=2", "trainer.limit_train_batches=1"), "trainer.limit_train_batches=1 uses only"),
        (
            train("strategy=full", "seed=3", "trainer.max_time={seconds: 0.1}", "trainer.max_epochs=30"),
            "trainer.max_time={'seconds': 0.1} ended the training in epoch ",
        ),
    ]
    said = capsys.readouterr().out
    report = write_report(tmp_path / "outputs" / "runs")
    aside = {name: why for name, status, why in report.uncounted if status == "set aside"}
    for (run, result), reason in short:
        assert result.status == "done"
        assert result.details["cut_short"][0].startswith(reason)
        assert aside[run.path.name].startswith(f"cut short: {reason}")
        assert f"Cut short, so in no comparison: {reason}" in " ".join(said.split())
    (analysis,) = report.analyses
    assert len(analysis[0].table.runs) == 2


def test_a_time_that_was_enough_cuts_nothing_short(train):
    assert "cut_short" not in train("trainer.max_time={hours: 1}", "trainer.max_epochs=1").result.details


@pytest.mark.parametrize("switch", ["trainer.fast_dev_run=true", "trainer.max_steps=1"])
def test_a_training_that_ends_before_its_last_phase_says_so(train, switch):
    with pytest.raises(
        RunError, match=r"ended the training in epoch \d of 2, before phase 'finetune' began with epoch 2"
    ):
        train("strategy=lp_ft", "datamodule.batch_size=80", switch)


@pytest.mark.slow
def test_a_run_that_predicts_no_numbers_fails_and_costs_the_others_nothing(train, tmp_path):
    for choices in (["strategy=freeze"], ["strategy=full"]):
        train("trainer.max_epochs=1", *choices)
    with pytest.raises(DivergedError, match=r"90 of 90 predictions on val are not numbers; lower optimizer.lr"):
        train("head=mlp", "optimizer.lr=1e30", "trainer.max_epochs=1", "datamodule.batch_size=80")
    results = [read_result(path) for path in find_runs(tmp_path / "outputs")]
    assert sorted(result.status for result in results) == ["done", "done", "failed"]
    report = write_report(tmp_path / "outputs" / "runs")
    assert len(report.analyses) == 1
    assert [status for _, status, _ in report.uncounted] == ["failed"]


def test_every_run_says_a_line_about_its_data(train, capsys):
    train("trainer.max_epochs=1", "datamodule.test_fraction=0")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Data: ")]
    assert line == "Data: digits, 10 classes (0, 1, 2, ...): 80 train (shots=8), 90 val (carved from train), no test"
