"""``metrics.csv`` and the lines of progress, from real fits."""

import csv
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
from headstart_testing import TinyRun, tiny_run
from pytorch_lightning.callbacks import ModelCheckpoint

from headstart.errors import DivergedError
from headstart.runs.result import read_metrics_csv
from headstart.strategies import L2SP, Freeze, Full, LpFt
from headstart.training.rows import append_row, epoch_line


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def noted(run: TinyRun, path: Path) -> TinyRun:
    run.module.on_row = partial(append_row, path)
    return run


def test_one_row_an_epoch_with_everything_logged(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    noted(tiny_run(LpFt(probe_epochs=1), max_epochs=3, num_sanity_val_steps=1), path).fit()
    rows = read(path)
    assert list(rows[0])[:7] == ["epoch", "step", "phase", "train/loss", "train/acc", "val/loss", "val/acc"]
    assert list(rows[0])[-1] == "seconds"
    rates = [name for name in rows[0] if name.startswith("lr/")]
    assert "lr/head" in rates
    assert not [name for name in rates if name.endswith("/no_decay")]  # those that only repeat their group's
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [row["phase"] for row in rows] == ["probe", "finetune", "finetune"]
    assert all(0 < float(row["seconds"]) < 60 for row in rows)
    assert all(float(row["train/loss"]) > 0 for row in rows)
    assert len(read_metrics_csv(path)) == 3


def test_what_is_minimised_is_logged_beside_the_plain_loss_where_it_is_another(tmp_path: Path):
    noted(tiny_run(Full(), max_epochs=1), tmp_path / "plain.csv").fit()
    noted(tiny_run(L2SP(alpha=0.1, beta=1.0), max_epochs=2), tmp_path / "l2sp.csv").fit()
    assert "train/objective" not in read(tmp_path / "plain.csv")[0]
    for row in read(tmp_path / "l2sp.csv"):
        penalties = float(row["train/l2sp"]) + float(row["train/l2"])
        assert penalties > 0.05
        assert float(row["train/objective"]) == pytest.approx(float(row["train/loss"]) + penalties, rel=0.02)


def test_validation_of_an_earlier_epoch_or_of_the_sanity_check_is_not_repeated(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    noted(tiny_run(Freeze(), max_epochs=4, check_val_every_n_epoch=2, num_sanity_val_steps=1), path).fit()
    assert [bool(row["val/acc"]) for row in read(path)] == [False, True, False, True]


def test_a_checkpoint_never_holds_an_epoch_without_a_row(tmp_path: Path):
    path, seen = tmp_path / "metrics.csv", []

    class Watch(ModelCheckpoint):
        def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
            super()._save_checkpoint(trainer, filepath)
            seen.append((trainer.current_epoch, read(path)[-1]["epoch"]))

    watch = Watch(tmp_path, "last", save_on_train_epoch_end=True)
    noted(tiny_run(Freeze(), max_epochs=3, callbacks=[watch], enable_checkpointing=True), path).fit()
    assert seen == [(0, "0"), (1, "1"), (2, "2")]


def test_an_epoch_that_is_trained_again_replaces_its_row_and_later_ones(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    for epoch in (0, 1, 2):
        append_row(path, {"epoch": epoch, "train/loss": 99.0, "seconds": 1.0})
    append_row(path, {"epoch": 1, "train/loss": 5.0, "val/acc": 0.5, "seconds": 1.0})
    assert [(row["epoch"], row["train/loss"], row["val/acc"]) for row in read(path)] == [
        ("0", "99.0", ""),
        ("1", "5.0", "0.5"),
    ]
    append_row(path, {"epoch": 0, "train/loss": 1.0, "seconds": 1.0})
    assert [row["train/loss"] for row in read(path)] == ["1.0"]


def test_the_row_of_a_failing_epoch_is_kept(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    run = noted(tiny_run(Full(), lr=1e30, max_epochs=3), path)
    with pytest.raises(DivergedError):
        run.fit()
    assert not all(row["train/loss"] for row in read_metrics_csv(path))


def test_a_line_of_an_epoch():
    row = {"epoch": 8, "train/loss": 0.5, "train/acc": 0.25, "lr/head": 0.1, "seconds": 2.06}
    assert epoch_line(row, 10) == "Epoch  9/10  train/loss 0.5000  2.1 s"
    assert epoch_line(row, -1) == "Epoch 9/?  train/loss 0.5000  2.1 s"
    assert epoch_line({**row, "val/acc": 1.0, "val/loss": 0.1}, 9) == (
        "Epoch 9/9  train/loss 0.5000  val/loss 0.1000  val/acc 1.0000  2.1 s"
    )
    many = {"epoch": 0, "train/loss": 0.5, **{f"val/{name}": 0.25 for name in "abcdef"}, "seconds": 2.06}
    shown = "  ".join(f"val/{name} 0.2500" for name in "eabc")
    assert epoch_line(many, 9, "val/e") == f"Epoch 1/9  train/loss 0.5000  {shown}  2.1 s"
