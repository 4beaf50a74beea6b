"""Training a head in closed form: one pass over the images, then the solution; no optimizer and no gradients.

It runs as a fit of one epoch, so that devices, precision, stored activations, costs, ``metrics.csv`` and the audit are
those of any other run.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from headstart.config.settings import RunSettings
from headstart.errors import ConfigError
from headstart.heads import ClosedForm
from headstart.heads.closed_form import Examples, Solution, outputs_of, solve
from headstart.model.description import ModelInfo
from headstart.model.phases import one_phase, stage_group
from headstart.model.transfer_model import TransferModel
from headstart.strategies.contract import Strategy
from headstart.strategies.modifiers import own_phases
from headstart.tasks import Task
from headstart.tasks.predictions import EpochOutputs
from headstart.training.audit import Audit
from headstart.training.checkpoints import BEST
from headstart.training.module import Batch, TransferModule
from headstart.training.rates import RatePlan, Schedule, optimizer_groups

PHASE = "closed form"


def closed_form_plan(info: ModelInfo) -> RatePlan:
    """One epoch in which the head is solved for; no parameter has a learning rate."""
    phases = one_phase(PHASE, [stage_group(info.head, lr_mult=0.0)], 1)
    return RatePlan(0.0, phases, optimizer_groups(phases, info), Schedule())


def check_closed_form(settings: RunSettings, strategy: Strategy, info: ModelInfo) -> None:
    """What the configuration cannot know of a user's own head or strategy.

    Raises:
        ConfigError: the strategy trains more than the head, or the YAML does not say that the head is in closed form.
    """
    if "refit" not in settings.head.arguments:
        raise ConfigError("this head is in closed form, which its YAML must say with the key refit: true or false")
    if not strategy.only_head_learns:
        raise ConfigError("this head is solved for on frozen features; use strategy=freeze with it")
    own_phases(strategy, info, max_epochs=settings.trainer.max_epochs)


class ClosedFormModule(TransferModule):
    """Collects the features of training and validation images in one epoch and solves for the head at its end.

    Validation scores what was solved for on the training images alone, at the value that validation chose. Where the
    head is solved for again on both (``refit``), that is what the model holds, the checkpoint keeps and the test sees.

    Args:
        model: whose head is a :class:`~headstart.heads.ClosedForm`.
        task: loss, metrics and probabilities.
        audit: started before training.
        channels_last: as in :class:`TransferModule`.
    """

    def __init__(self, model: TransferModel, task: Task, audit: Audit, *, channels_last: bool = False) -> None:
        plan = closed_form_plan(audit.info)
        super().__init__(model, task, plan, audit, optimizer=_none, channels_last=channels_last)
        self.automatic_optimization = False
        self.solution: Solution | None = None
        self._seen: dict[str, EpochOutputs] = {"train": EpochOutputs(), "val": EpochOutputs()}
        self._train_metrics: dict[str, float] = {}

    @property
    def head(self) -> ClosedForm:
        """The model's head."""
        head = self.model.head
        assert isinstance(head, ClosedForm)
        return head

    def configure_optimizers(self) -> Any:
        """None are needed."""
        return []

    # The one epoch

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Keep the pooled features."""
        self._collect("train", batch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """There are no rates to set."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the pooled features while fitting, outputs afterwards."""
        if self._fitting:
            self._collect("val", batch)
        else:
            super().validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """All features are there: solve."""
        if self._fitting and not self.trainer.sanity_checking:
            self._solve()
        if not self.trainer.sanity_checking:
            super().on_validation_epoch_end()

    def on_train_epoch_end(self) -> None:
        """Log how well what validation scored fits the training images."""
        self.log_dict({f"train/{name}": value for name, value in self._train_metrics.items()})

    def on_validation_start(self) -> None:
        """After the fit, validation scores what has not seen its images."""
        if not self._fitting and self.solution is not None:
            self.head.load_state_dict(self.solution.on_train)

    def on_validation_end(self) -> None:
        """The head to keep comes back."""
        if not self._fitting and self.solution is not None:
            self.head.load_state_dict(self.solution.final)

    @property
    def _fitting(self) -> bool:
        return bool(self.trainer.state.fn == "fit")

    @torch.no_grad()
    def _collect(self, split: str, batch: Batch) -> None:
        if self.trainer.sanity_checking:
            return
        if "activations" in batch:
            stages = int(batch.get("stages", self._frozen_stages()))
            features = self.model.features_from(batch["activations"], stages)
        else:
            images = batch["images"]
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            features = self.model.features(images.contiguous(memory_format=layout))
        self._seen[split].add(self.head.pool(features), batch["targets"], batch["index"])

    def _solve(self) -> None:
        head, home = self.head, self.device
        # Double precision, which Apple's GPUs do not have.
        place = torch.device("cpu") if home.type == "mps" else home
        head.to(place)
        (train, _), (val, index) = (self._examples(split, place) for split in ("train", "val"))
        self.solution = solve(head, train, val, self.task)
        self.audit.see_solution()
        head.load_state_dict(self.solution.on_train)
        outputs, targets = outputs_of(head, train).float().cpu(), train.targets.cpu()
        loss = float(self.task.loss(outputs, targets))
        self._train_metrics = {"loss": loss, **self.task.training_summary(outputs, targets)}
        self._evaluated.add(outputs_of(head, val), val.targets, index)
        head.load_state_dict(self.solution.final)
        head.to(home)
        self._seen.clear()

    def _examples(self, split: str, place: torch.device) -> tuple[Examples, Tensor]:
        """What was collected of a split and where it is there, in the split's order, each image once."""
        seen = self._seen[split]
        index, targets = seen.index.all().cpu(), seen.targets.all().to(place)
        order = torch.from_numpy(np.unique(index.numpy(), return_index=True)[1])
        features = seen.outputs.all().to(place)[order.to(place)]
        features = features if features.dtype == torch.float64 else features.float()
        return Examples(features, targets[order.to(place)]), index[order]


class SaveSolution(Checkpoint):
    """Keeps the solved model as the run's best checkpoint; there is none to resume from: one pass is all there is.

    Args:
        folder: of the run's checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{BEST}.ckpt"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Comes after the module's own, and after validation."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning, not declared
            trainer.save_checkpoint(self._path, weights_only=True)


def solution_record(module: TransferModule) -> dict[str, Any]:
    """What was chosen and how, for the ``details`` of ``result.json``; empty for a head that learned in steps."""
    if not isinstance(module, ClosedFormModule) or module.solution is None:
        return {}
    return {"closed_form": module.solution.record(refit=module.head.refit)}


def stored_numbers(module: TransferModule) -> dict[str, int]:
    """``stored`` for ``params`` in ``result.json``: a solved head may keep more than parameters (its bank)."""
    if not isinstance(module, ClosedFormModule):
        return {}
    return {"stored": sum(tensor.numel() for tensor in module.head.state_dict().values())}


def _none(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    raise RuntimeError("a head in closed form has no optimizer")
