"""One job among those trained together: what is its own, and what it has come to."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from headstart.config import ResolvedRun
from headstart.data.sampler import EpochSampler, RepeatedBatches
from headstart.frozen.features import Splits
from headstart.model.description import ModelInfo
from headstart.runs.directory import Attempt, RunDirectory
from headstart.tasks import Task
from headstart.training.callbacks import Row, distinct_rates
from headstart.training.module import diverged
from headstart.training.rates import RatePlan, build_plateau, plateau_factor


@dataclass
class Kept:
    """What a checkpoint keeps of a moment.

    Attributes:
        epoch: counted from 0.
        state: the head's parameters by name.
        plateau: state of the plateau schedule.
    """

    epoch: int
    state: dict[str, Tensor]
    plateau: dict[str, Any] | None


@dataclass
class Member:
    """One job.

    Attributes:
        resolved: its choices.
        run: its directory, locked.
        attempt: records its cost.
        head: freshly initialised; in the end with the weights that validation chose.
        info: of the whole model.
        plan: its rates.
        task: loss and metrics.
        splits: its data.
        rows: of ``metrics.csv``.
        score: of the best epoch so far, not a number replaced by the worst there is.
        current: the metric that chooses the checkpoint, of the last epoch.
        best: the epoch that validation chose.
        last: the last epoch.
        optimizer: state of the optimizer in the end, by parameter.
        last_rates: of the optimizer's groups in the last step.
        images_seen: in training.
        fit_seconds: its share of the time of every epoch.
        error: what ended it, if something did.
    """

    resolved: ResolvedRun
    run: RunDirectory
    attempt: Attempt
    head: nn.Module
    info: ModelInfo
    plan: RatePlan
    task: Task
    splits: Splits
    rows: list[Row] = field(default_factory=list)
    score: Tensor | None = None
    current: Tensor | None = None
    best: Kept | None = None
    last: Kept | None = None
    optimizer: dict[str, dict[str, Any]] = field(default_factory=dict)
    last_rates: list[float] = field(default_factory=list)
    images_seen: int = 0
    fit_seconds: float = 0.0
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.plateau: ReduceLROnPlateau | None = build_plateau(self.plan.schedule, self.task.monitor_mode)
        choice = self.config["callbacks"]["early_stopping"]
        self.stopping: EarlyStopping | None = None
        if choice["enabled"]:
            self.stopping = EarlyStopping(
                self.task.monitor,
                mode=self.task.monitor_mode,
                patience=choice["patience"],
                min_delta=choice["min_delta"],
            )

    @property
    def config(self) -> dict[str, Any]:
        """Its resolved choices."""
        return self.resolved.config

    @property
    def max_epochs(self) -> int:
        """How long it trains at most."""
        return int(self.config["trainer"]["max_epochs"])

    @property
    def plateau_factor(self) -> float:
        """What the plateau schedule makes of the rate."""
        return plateau_factor(self.plateau)

    def batches(self, epoch: int) -> tuple[list[Tensor], list[int]]:
        """Positions of an epoch's training images batch by batch, and the pass over the images of each batch."""
        choice, length = self.config["datamodule"], len(self.splits.features["train"])
        size, drop_last = choice["batch_size"], choice["drop_last"]
        sampler = EpochSampler(length, seed=self.config["seed"], shuffle=True, drop_last=drop_last)
        if choice["steps_per_epoch"] is not None:
            sampler.set_epoch(epoch)
            stream = RepeatedBatches(sampler, size, steps=choice["steps_per_epoch"], drop_last=drop_last)
            dealt = list(stream)
            return [torch.tensor([index for _, index in keys]) for keys in dealt], [keys[0][0] for keys in dealt]
        found = list(torch.from_numpy(sampler.order(epoch)).split(size))
        if drop_last and len(found[-1]) < size:
            found.pop()
        return found, [epoch] * len(found)

    def end_epoch(
        self, epoch: int, step: int, train: dict[str, float], val: dict[str, float], *, position: float, seconds: float
    ) -> None:
        """Note an epoch's metrics and rates; follow the plateau.

        Args:
            epoch: counted from 0.
            step: how many there were.
            train: metrics of training.
            val: of validation.
            position: of the last step, in epochs.
            seconds: that the epoch took for all jobs.

        Raises:
            DivergedError: the training loss is not a number.
        """
        rates = self.plan.rates(position, plateau=self.plateau_factor)
        self.last_rates = rates
        values = {f"train/{name}": value for name, value in train.items()}
        values |= {f"val/{name}": value for name, value in val.items()}
        values |= {f"lr/{group.name}": rate for group, rate in zip(self.plan.groups, rates, strict=True)}
        with np.errstate(over="ignore"):  # Lightning keeps what is logged in 32 bits.
            shown = distinct_rates({name: float(np.float32(value)) for name, value in values.items()})
        phase = self.plan.phases[self.plan.phase_index(epoch)].name
        self.rows.append({"epoch": epoch, "step": step, "phase": phase, **shown, "seconds": round(seconds, 3)})
        if not np.isfinite(train["loss"]):
            raise diverged(train["loss"], epoch, self.plan.base_lr)
        self.current = torch.tensor(val[self.task.monitor.removeprefix("val/")], dtype=torch.float32)
        if self.plateau is not None:
            self.plateau.step(float(self.current))

    def improved(self) -> bool:
        """Whether the last epoch is the best so far, as Lightning's checkpoint callback decides it."""
        assert self.current is not None
        larger = self.task.monitor_mode == "max"
        better = torch.gt if larger else torch.lt
        if self.score is not None and not better(self.current, self.score):
            return False
        worst = torch.tensor(-torch.inf if larger else torch.inf)
        self.score = worst if torch.isnan(self.current) else self.current
        return True

    def ends(self, epoch: int) -> bool:
        """Whether this epoch was its last one."""
        stop = False
        if self.stopping is not None:
            assert self.current is not None
            stop, reason = self.stopping._evaluate_stopping_criteria(self.current)
            if stop:
                self.stopping.stopped_epoch, self.stopping.stopping_reason_message = epoch, reason
        return stop or epoch + 1 >= self.max_epochs

    def keep(self, epoch: int, state: dict[str, Tensor]) -> Kept:
        """The present moment."""
        return Kept(epoch, state, self.plateau.state_dict() if self.plateau else None)
