"""Callbacks, each in a real Lightning fit of a tiny model."""

import csv
import io
import mmap
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from rich.console import Console
from torch.utils.data import DataLoader

from headstart.errors import ConfigError
from headstart.runs.result import read_metrics_csv
from headstart.system import console
from headstart.training.callbacks import (
    BarProgress,
    CostMeter,
    MetricsCsv,
    PlainProgress,
    StepSeed,
    build_progress,
    epoch_line,
)


class Tiny(pl.LightningModule):
    """Logs as the package's module does: training values in its own ``on_train_epoch_end``."""

    def __init__(self, *, fail_in: int | None = None, seconds_a_batch: float = 0.0) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        self.fail_in = fail_in
        self.seconds_a_batch = seconds_a_batch
        self.masks: list[float] = []

    @property
    def phase(self) -> SimpleNamespace:
        return SimpleNamespace(name="head" if self.current_epoch < 2 else "all")

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch["images"]).square().mean()
        time.sleep(self.seconds_a_batch)
        self.masks.append(float(loss.detach()))
        self.log("train/loss_step", loss, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.log("val/acc", float(self.current_epoch), batch_size=4)

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", 10.0 + self.current_epoch)
        if self.fail_in == self.current_epoch:
            raise RuntimeError("diverged")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights = [{"params": [self.layer[0].weight, self.layer[2].weight], "lr": 0.01, "name": "head"}]
        biases = [{"params": [self.layer[0].bias, self.layer[2].bias], "lr": 0.01, "name": "head/no_decay"}]
        return torch.optim.SGD(weights + biases)


def batches() -> DataLoader:
    data = [{"images": torch.ones(4) * i, "targets": i} for i in range(10)]
    return DataLoader(data, batch_size=4)


def fit(module: Tiny, *callbacks: Callback, epochs: int = 3, resume: Path | None = None, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        accelerator="cpu",
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, PlainProgress) for callback in callbacks),
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, batches(), batches(), ckpt_path=resume)
    return trainer


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def last(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)


def test_one_row_an_epoch_with_everything_logged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    fit(Tiny(), MetricsCsv(path), num_sanity_val_steps=1)
    rows = read(path)
    assert list(rows[0]) == ["epoch", "step", "phase", "train/loss", "val/acc", "lr/head", "seconds"]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [row["step"] for row in rows] == ["3", "6", "9"]
    assert [row["phase"] for row in rows] == ["head", "head", "all"]
    assert [float(row["train/loss"]) for row in rows] == [10, 11, 12]
    assert [float(row["val/acc"]) for row in rows] == [0, 1, 2]
    assert {float(row["lr/head"]) for row in rows} == {0.01}
    assert all(0 < float(row["seconds"]) < 60 for row in rows)
    assert len(read_metrics_csv(path)) == 3


def test_validation_of_an_earlier_epoch_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    fit(Tiny(), MetricsCsv(path), epochs=4, check_val_every_n_epoch=2)
    assert [row["val/acc"] for row in read(path)] == ["", "1.0", "", "3.0"]


def test_a_checkpoint_never_holds_an_epoch_without_a_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    seen = []

    class Watch(ModelCheckpoint):
        def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
            super()._save_checkpoint(trainer, filepath)
            rows = read(path)
            seen.append((trainer.current_epoch, rows[-1]["epoch"], rows[-1]["train/loss"]))

    fit(Tiny(), MetricsCsv(path), Watch(tmp_path, "last", save_on_train_epoch_end=True))
    assert seen == [(0, "0", "10.0"), (1, "1", "11.0"), (2, "2", "12.0")]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_resumed_run_goes_on_and_drops_rows_that_it_trains_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    fit(Tiny(), MetricsCsv(path), last(tmp_path), epochs=2)
    # An epoch that was recorded and then lost with its checkpoint.
    path.write_text(path.read_text() + "2,9,lost,99,99,0.01,1\n")
    fit(Tiny(), MetricsCsv(path), last(tmp_path), epochs=4, resume=tmp_path / "last.ckpt")
    rows = read(path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [float(row["train/loss"]) for row in rows] == [10, 11, 12, 13]


def test_a_new_run_does_not_keep_old_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,train/loss\n0,99\n7,99\n")
    fit(Tiny(), MetricsCsv(path), epochs=1)
    assert [row["train/loss"] for row in read(path)] == ["10.0"]


def test_the_row_of_a_failing_epoch_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with pytest.raises(RuntimeError, match="diverged"):
        fit(Tiny(fail_in=1), MetricsCsv(path))
    assert [row["train/loss"] for row in read(path)] == ["10.0", "11.0"]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_dropout_after_a_resume_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole = Tiny()
    fit(whole, StepSeed(7), last(tmp_path), epochs=2)
    start = tmp_path / "last.ckpt"
    start.rename(start := tmp_path / "start.ckpt")
    fit(whole, StepSeed(7), last(tmp_path), epochs=3, resume=start)

    torch.manual_seed(999)
    resumed, other = Tiny(), Tiny()
    fit(resumed, StepSeed(7), last(tmp_path), epochs=3, resume=start)
    fit(other, StepSeed(8), last(tmp_path), epochs=3, resume=start)
    assert resumed.masks == whole.masks[-3:]
    assert other.masks != resumed.masks


def test_every_batch_of_every_step_and_process_draws_its_own() -> None:
    drawn = []
    for step, batch, rank in ((5, 0, 0), (5, 1, 0), (5, 0, 1), (6, 0, 0), (5, 0, 0)):
        trainer: Any = SimpleNamespace(global_step=step, global_rank=rank)
        StepSeed(1).on_train_batch_start(trainer, Tiny(), None, batch)
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[-1]
    assert len(set(drawn)) == 4


def test_cost_counts_images_and_time_and_is_recorded_every_epoch() -> None:
    recorded: list[dict[str, Any]] = []
    meter = CostMeter(SimpleNamespace(record=lambda **cost: recorded.append(cost)))
    fit(Tiny(), meter)
    assert [cost["images_seen"] for cost in recorded] == [10, 20, 30, 30]
    seconds = [cost["fit_seconds"] for cost in recorded]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < 60
    assert meter.cost() == recorded[-1] | {"peak_memory_bytes": meter.peak_memory_bytes}
    assert 20e6 < meter.peak_memory_bytes < 64e9


def test_the_total_of_an_attempt_that_is_cut_off_is_no_less_than_its_training() -> None:
    recorded: list[dict[str, Any]] = []
    began = time.perf_counter() - 5
    fit(Tiny(), CostMeter(SimpleNamespace(record=lambda **cost: recorded.append(cost)), since=began))
    assert len(recorded) == 4
    assert all(cost["fit_seconds"] + 5 <= cost["total_seconds"] < 60 for cost in recorded)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a process's peak")
def test_the_peak_of_an_earlier_run_in_the_process_is_forgotten() -> None:
    # 400 MB of the system's own: a tensor may lie in memory that the process has, and keeps.
    ballast = mmap.mmap(-1, 400_000_000)
    ballast[:: mmap.PAGESIZE] = bytes(len(range(0, len(ballast), mmap.PAGESIZE)))
    first = CostMeter()
    fit(Tiny(), first, epochs=1)
    before = first.peak_memory_bytes
    ballast.close()
    second = CostMeter()
    fit(Tiny(), second, epochs=1)
    assert second.peak_memory_bytes < before - 300e6


def test_plain_progress_is_one_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Tiny(), PlainProgress())
    lines = capsys.readouterr().out.splitlines()
    pattern = r"Epoch {}/3  train/loss {}\.0000  val/acc {}\.0000  \d+\.\d s"
    assert len(lines) == 3
    for number, line in enumerate(lines):
        assert re.fullmatch(pattern.format(number + 1, 10 + number, number), line)


def test_the_bar_leaves_the_same_lines_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(console, "_console", terminal)
    fit(Tiny(seconds_a_batch=0.12), BarProgress())
    text = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "batches/s" in text
    assert "Epoch 1/3 " in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r", "\n"))
    for number in (1, 2, 3):
        assert len(re.findall(rf"^Epoch {number}/3  train/loss .* s$", plain, re.MULTILINE)) == 1


def test_an_error_takes_the_bar_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(console, "_console", terminal)
    with pytest.raises(RuntimeError, match="diverged"):
        fit(Tiny(fail_in=0), BarProgress())
    terminal.print("after")
    assert "\x1b[?25h" in terminal.file.getvalue()  # type: ignore[attr-defined]  the cursor is back
    assert not terminal._live_stack


@pytest.mark.parametrize(
    ("choice", "terminal", "expected"),
    [
        ("auto", True, [BarProgress]),
        ("auto", False, [PlainProgress]),
        ("rich", False, [BarProgress]),
        ("none", True, []),
    ],
)
def test_progress_is_chosen(choice: str, terminal: bool, expected: list[type]) -> None:
    assert [type(callback) for callback in build_progress(choice, terminal)] == expected


def test_an_unknown_progress_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.progress=fancy.*plain"):
        build_progress("fancy")


def test_a_line_of_an_epoch_without_validation() -> None:
    row = {"epoch": 8, "train/loss": 0.5, "train/acc": 0.25, "lr/head": 0.1, "seconds": 2.06}
    assert epoch_line(row, 10) == "Epoch  9/10  train/loss 0.5000  2.1 s"
    assert epoch_line(row, -1) == "Epoch 9/?  train/loss 0.5000  2.1 s"
