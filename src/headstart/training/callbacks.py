"""Lightning callbacks: progress on a terminal or in a log, ``metrics.csv``, cost, and a seed for every step."""

import csv
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from headstart.errors import ConfigError
from headstart.system.atomic import atomic_write
from headstart.system.console import duration, get_console, is_terminal, show

Row = dict[str, float | int | str | None]


class StepSeed(Callback):
    """Seeds torch for every training batch, so that dropout does not depend on what was drawn before.

    A run that was stopped and resumed at an epoch's end then draws what an uninterrupted one draws. The batch's
    number enters beside the step's: with gradient accumulation several batches share a step.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed from (seed, step, batch, rank)."""
        torch.manual_seed(step_seed(self.seed, trainer.global_step, batch_idx, trainer.global_rank))


def step_seed(seed: int, step: int, batch: int, rank: int = 0) -> int:
    """Torch's seed for one batch of training."""
    return int(np.random.SeedSequence([seed, step, batch, rank]).generate_state(1, np.uint64)[0])


class EpochRows(Callback):
    """Makes one row of flat metrics an epoch and hands it to :meth:`on_row`.

    The module logs in its own ``on_train_epoch_end``, which comes after that of most callbacks; a row is therefore
    made when a checkpoint is about to be saved or the next epoch starts, whichever is first. So a checkpoint never
    holds an epoch that has no row yet.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._pending: Row | None = None
        self._validated = False

    def on_row(self, trainer: pl.Trainer, row: Row) -> None:
        """Called once an epoch with ``epoch``, ``step``, ``phase``, the metrics, the rates and ``seconds``."""
        raise NotImplementedError

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand over the last epoch's row and start the clock."""
        self._flush(trainer)
        self._started, self._validated = time.perf_counter(), False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that this epoch has validation metrics of its own."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note what is known already."""
        phase = getattr(getattr(pl_module, "phase", None), "name", "")
        seconds = round(time.perf_counter() - self._started, 3)
        self._pending = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "phase": phase,
            "seconds": seconds,
        }

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Hand over the row before the checkpoint exists."""
        self._flush(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand over the last row."""
        self._flush(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Hand over the row of the epoch whose end failed, such as one with a loss that is not a number."""
        self._flush(trainer)

    def _flush(self, trainer: pl.Trainer) -> None:
        if self._pending is None:
            return
        row, self._pending = self._pending, None
        seconds = row.pop("seconds")
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if _is_epoch_metric(name)}
        if not self._validated:
            # Those of an earlier epoch are still there.
            metrics = {name: value for name, value in metrics.items() if not name.startswith("val/")}
        if not any(name.startswith("lr/") for name in metrics):
            metrics |= _rates(trainer)
        self.on_row(trainer, {**row, **distinct_rates(metrics), "seconds": seconds})


class MetricsCsv(EpochRows):
    """Writes ``metrics.csv``, one row an epoch; the file is whole at every moment.

    It is replaced as a whole, which lets columns appear later (validation every few epochs, groups of a later
    phase). A resumed run drops the rows of epochs that it trains again and goes on.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._rows: list[Mapping[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the rows of the epochs before the one that training starts at."""
        self._rows = []
        if trainer.current_epoch and self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                self._rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < trainer.current_epoch]

    def on_row(self, trainer: pl.Trainer, row: Row) -> None:
        """Write the file anew with this row."""
        if not trainer.is_global_zero:
            return
        self._rows.append(row)
        write_metrics(self.path, self._rows)


def write_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``metrics.csv`` as a whole."""
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, _columns(rows), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def distinct_rates(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without rates that only repeat: biases and norms learn at their group's and differ in weight decay only."""
    return {name: value for name, value in metrics.items() if not _repeats_rate(name, metrics)}


class CostRecord(Protocol):
    """Where a run's cost is kept; :class:`headstart.runs.directory.Attempt`."""

    def record(self, **cost: Any) -> None:
        """Set parts of the cost to their values so far."""


class CostMeter(Callback):
    """Measures one attempt: seconds of training and validation, training images seen, peak memory, device.

    Peak memory is the accelerator's where there is one, else the process's since the start of training.

    Args:
        record: gets the cost so far at every epoch's end and at the end of training.
        apart: seconds spent so far on what is counted elsewhere (building the cache).
        since: when the attempt began, by :func:`time.perf_counter`; None: the total is not measured here.
    """

    def __init__(
        self, record: CostRecord | None = None, *, apart: Callable[[], float] = lambda: 0.0, since: float | None = None
    ) -> None:
        self.fit_seconds = 0.0
        self.images_seen = 0
        self._record = record
        self._apart, self._since = apart, since
        self._started = self._apart_before = 0.0
        self._cuda: torch.device | None = None

    @property
    def peak_memory_bytes(self) -> int:
        """The peak since training started."""
        return torch.cuda.max_memory_allocated(self._cuda) if self._cuda is not None else _peak_resident_bytes()

    def cost(self) -> dict[str, Any]:
        """Names and values as in ``result.json``'s ``cost``."""
        return {
            "fit_seconds": round(self.fit_seconds, 3),
            "images_seen": self.images_seen,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and forget earlier peaks."""
        self.start(pl_module.device)

    def start(self, device: torch.device) -> None:
        """Start the clock and forget earlier peaks of the device, or of this process."""
        self._started, self._apart_before = time.perf_counter(), self._apart()
        if device.type == "cuda":
            self._cuda = device
            torch.cuda.reset_peak_memory_stats(self._cuda)
        else:
            _reset_peak_resident()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's images, of all processes."""
        self.images_seen += len(batch["targets"]) * trainer.world_size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the cost so far: what a crash later in the run cannot take away."""
        self._report(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the final cost."""
        self._report(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Record what a failed attempt cost."""
        if trainer.training:
            self._report(trainer)

    def _report(self, trainer: pl.Trainer) -> None:
        apart = self._apart() - self._apart_before
        self.fit_seconds = max(0.0, time.perf_counter() - self._started - apart)
        if self._record is not None and trainer.is_global_zero:
            total = 0.0 if self._since is None else time.perf_counter() - self._since - self._apart()
            self._record.record(**self.cost(), **({"total_seconds": round(total, 3)} if total else {}))


class PlainProgress(EpochRows, ProgressBar):
    """One line an epoch: ``Epoch 3/10  train/loss 0.41  val/loss 0.33  val/acc 0.93  2.1 s``."""

    def __init__(self) -> None:
        ProgressBar.__init__(self)
        EpochRows.__init__(self)
        self._enabled = True

    def disable(self) -> None:
        """Say nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def on_row(self, trainer: pl.Trainer, row: Row) -> None:
        """Print the epoch's line."""
        if self._enabled and trainer.is_global_zero:
            show(epoch_line(row, trainer.max_epochs))


class BarProgress(PlainProgress):
    """A bar within the epoch, and the line of :class:`PlainProgress` after it."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the bar of this epoch."""
        super().on_train_epoch_start(trainer, pl_module)
        if not self._enabled:
            return
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
            figures = (TextColumn("{task.fields[note]}"), TimeRemainingColumn(compact=True))
            self._bar = Progress(*columns, *figures, console=get_console(), transient=True, expand=True)
            self._task = self._bar.add_task("", total=None, note="")
        total = trainer.num_training_batches + sum(_finite(n) or 0 for n in trainer.num_val_batches)
        description = f"Epoch {trainer.current_epoch + 1}/{_epochs(trainer.max_epochs)}"
        self._bar.reset(self._task, total=_finite(total), description=description, note="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by one batch."""
        self._advance(f"{(batch_idx + 1) / max(time.perf_counter() - self._started, 1e-9):.1f} batches/s")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance by one batch."""
        self._advance("validating")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._stop()
        super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away, so that the error stands alone."""
        self._stop()
        super().on_exception(trainer, pl_module, exception)

    def _advance(self, note: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=note)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def build_progress(choice: str, terminal: bool | None = None) -> list[ProgressBar]:
    """The progress callbacks for ``callbacks.progress``: one, or none.

    Args:
        choice: ``auto`` (a bar on a terminal, lines in a log), ``rich``, ``plain`` or ``none``.
        terminal: whether there is a terminal; None asks standard output.

    Raises:
        ConfigError: another choice.
    """
    if choice == "auto":
        choice = "rich" if (is_terminal() if terminal is None else terminal) else "plain"
    builders: dict[str, list[type[ProgressBar]]] = {"rich": [BarProgress], "plain": [PlainProgress], "none": []}
    if choice not in builders:
        raise ConfigError(f"callbacks.progress={choice} is unknown; choose auto, rich, plain or none")
    return [builder() for builder in builders[choice]]


def epoch_line(row: Mapping[str, Any], max_epochs: int | None) -> str:
    """One epoch in one line: the training loss, what validation gave, the seconds."""
    names = [name for name in ("train/loss", "val/loss") if name in row]
    names += [name for name in row if name.startswith("val/") and name != "val/loss"]
    epochs = _epochs(max_epochs)
    parts = [f"Epoch {row['epoch'] + 1:>{len(epochs)}}/{epochs}"]
    parts += [f"{name} {row[name]:.4f}" for name in names if row[name] is not None]
    return "  ".join([*parts, duration(row["seconds"])])


def _epochs(max_epochs: int | None) -> str:
    return "?" if max_epochs is None or max_epochs < 0 else str(max_epochs)


def _is_epoch_metric(name: str) -> bool:
    return "/" in name and not name.endswith("_step")


def _repeats_rate(name: str, metrics: Mapping[str, float]) -> bool:
    base = name.removesuffix("/no_decay")
    return name.startswith("lr/") and name != base and metrics.get(base) == metrics[name]


def _rates(trainer: pl.Trainer) -> dict[str, float]:
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return {f"lr/{group.get('name', index)}": float(group["lr"]) for index, group in enumerate(groups)}


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    first = ("epoch", "step", "phase", "train/loss", "train/acc", "val/loss", "val/acc")
    seen = dict.fromkeys(name for row in rows for name in row)
    kind = {"train": 0, "val": 1, "lr": 3}

    def place(name: str) -> tuple[int, int]:
        if name in first:
            return (0, first.index(name))
        return (2, 0) if name == "seconds" else (1, kind.get(name.partition("/")[0], 2))

    return sorted(seen, key=place)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _reset_peak_resident() -> None:
    """Linux can forget the process's peak; elsewhere it stays that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_resident_bytes() -> int:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
