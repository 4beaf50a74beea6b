"""What a training costs: time, images, memory."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


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

    def start(self, device: torch.device) -> None:
        """Start the clock and forget earlier peaks of the device, or of this process."""
        self._started, self._apart_before = time.perf_counter(), self._apart()
        if device.type == "cuda":
            self._cuda = device
            torch.cuda.reset_peak_memory_stats(self._cuda)
        else:
            _reset_peak_resident()

    def report(self) -> None:
        """Record the cost so far: what a crash later in the run cannot take away."""
        now, apart = time.perf_counter(), self._apart()
        self.fit_seconds = max(0.0, now - self._started - (apart - self._apart_before))
        if self._record is None:
            return
        total = {} if self._since is None else {"total_seconds": round(now - self._since - apart, 3)}
        self._record.record(
            fit_seconds=round(self.fit_seconds, 3),
            images_seen=self.images_seen,
            peak_memory_bytes=self.peak_memory_bytes,
            **total,
        )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start measuring."""
        self.start(pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the batch's images, of all processes."""
        self.images_seen += len(batch["targets"]) * trainer.world_size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the cost of the epochs so far."""
        self.report()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the final cost."""
        self.report()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Record what a failed attempt cost."""
        if trainer.training:
            self.report()


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
