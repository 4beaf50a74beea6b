"""A bar that shows how far an epoch is, for a person at a terminal."""

import math
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from headstart.system.console import get_console, is_terminal
from headstart.training.rows import epochs_text


def shows_bar(choice: str) -> bool:
    """Whether ``callbacks.progress`` asks for a bar; ``auto`` does on a terminal."""
    return choice == "rich" or (choice == "auto" and is_terminal())


class BarProgress(Callback):
    """A bar within the epoch."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task, self._started = TaskID(0), 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the bar of this epoch."""
        if not trainer.is_global_zero:
            return
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
            figures = (TextColumn("{task.fields[note]}"), TimeRemainingColumn(compact=True))
            self._bar = Progress(*columns, *figures, console=get_console(), transient=True, expand=True)
            self._task = self._bar.add_task("", total=None, note="")
        total = trainer.num_training_batches + sum(n for n in trainer.num_val_batches if math.isfinite(n))
        description = f"Epoch {trainer.current_epoch + 1}/{epochs_text(trainer.max_epochs)}"
        self._bar.reset(self._task, total=total if math.isfinite(total) else None, description=description, note="")
        self._bar.start()
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Advance by one batch."""
        self._advance(f"{(batch_idx + 1) / max(time.perf_counter() - self._started, 1e-9):.1f} batches/s")

    def on_validation_batch_end(self, trainer: pl.Trainer, *batch: Any) -> None:
        """Advance by one batch."""
        self._advance("validating")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away, so that the error stands alone."""
        self._stop()

    def _advance(self, note: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=note)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
