"""The one LightningModule: it runs any strategy's phases and knows none of them."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from headstart.errors import DivergedError, RunError
from headstart.model.modes import BatchNormMode, apply_gradients, apply_modes
from headstart.model.phases import Phase
from headstart.model.transfer_model import TransferModel
from headstart.strategies.contract import Extras, Step
from headstart.system.digests import digest
from headstart.tasks import Task
from headstart.tasks.predictions import EpochOutputs, Predictions
from headstart.training.audit import Audit, static_names
from headstart.training.batch_transform import BatchTransform, hard_targets
from headstart.training.choice import EpochChoice
from headstart.training.ema import WeightAverage
from headstart.training.rates import RatePlan, build_plateau, plateau_factor, restore_plateau, torch_groups
from headstart.training.rows import Row, distinct_rates

Batch = dict[str, Tensor]


class TransferModule(pl.LightningModule):
    """Trains a :class:`TransferModel` through the phases of a strategy.

    A batch holds ``images`` ``(B, C, H, W)`` or ``activations`` (what the frozen prefix makes of them),
    ``targets`` ``(B,)``, ``(B, columns)`` or masks ``(B, H, W)``, and ``index`` ``(B,)``, the samples' positions in
    their split.

    Args:
        model: what is trained.
        task: loss, metrics and probabilities.
        plan: phases, parameter groups and rates.
        audit: started before training.
        optimizer: takes torch parameter groups.
        weight_decay: for the groups that decay.
        extras: losses and metrics of the strategy.
        batch_transform: mixes training images.
        ema_decay: of the moving average of the weights, which is then what is evaluated and kept; None: no average.
        batchnorm: ``train``; ``eval`` and ``affine`` keep all running statistics of the backbone's BatchNorm layers.
        channels_last: store images and convolutions with channels last; the faster layout for convolutions.
        compiled: run the network through ``torch.compile``, anew in every phase.

    Attributes:
        on_row: gets what an epoch came to, in the first process.
        choice: which validation images each epoch had right, where accuracy chooses.
    """

    def __init__(
        self,
        model: TransferModel,
        task: Task,
        plan: RatePlan,
        audit: Audit,
        *,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        weight_decay: float = 0.0,
        extras: Extras | None = None,
        batch_transform: BatchTransform | None = None,
        ema_decay: float | None = None,
        batchnorm: BatchNormMode = "train",
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.task = task
        self.plan = plan
        self.audit = audit
        self.extras = extras or Extras()
        self.other_metrics: dict[str, float] = {}
        self.predictions: dict[str, Predictions] = {}
        self._optimizer = optimizer
        self._weight_decay = weight_decay
        self._batchnorm: BatchNormMode = batchnorm
        self.channels_last = channels_last
        self._compiled = compiled
        self._run: Callable[[Tensor], tuple[Tensor, Tensor]] = self._features_and_outputs
        self._phase_index: int | None = None
        self._train = EpochOutputs()
        self._extra: dict[str, Tensor] = {}
        self._steps = 0
        self._evaluated = EpochOutputs()
        self._plateau = build_plateau(plan.schedule, task.monitor_mode)
        self._batch_transform = batch_transform
        self._static = static_names(audit, plan.phases, batchnorm=batchnorm)
        self._static_digest: str | None = None
        moving = frozenset(self.model.state_dict()) - self._static
        self._ema = None if ema_decay is None else WeightAverage(self.model, moving, ema_decay)
        self._last_step = 0
        self.choice = EpochChoice()
        self.on_row: Callable[[Row], None] = lambda row: None
        self._epoch_began, self._validated_epoch = 0.0, -1

    # Modes and phases

    @property
    def phase(self) -> Phase:
        """The phase of the present epoch."""
        return self.plan.phases[self.plan.phase_index(self.current_epoch if self._trainer else 0)]

    def train(self, mode: bool = True) -> "TransferModule":
        """Training mode reaches only what learns in the present phase."""
        super().train(mode)
        if mode:
            apply_modes(self.model, self.phase, batchnorm=self._batchnorm)
        return self

    def setup(self, stage: str) -> None:
        """Let everything that will ever learn require gradients, so that DDP synchronises all of it."""
        if stage == "fit":
            apply_gradients(self.model, self.audit.ever_learning)

    def on_fit_start(self) -> None:
        """Lightning does not call ``train()`` at the start of a fit."""
        self._phase_index = None
        if self._ema is not None:
            self._ema.start()
        self.train()

    def on_train_start(self) -> None:
        """A resumed fit knows its number of steps only now."""
        self._last_step = self.global_step

    def on_train_epoch_start(self) -> None:
        """Enter the phase of this epoch."""
        self._epoch_began = time.perf_counter()
        index = self.plan.phase_index(self.current_epoch)
        if index != self._phase_index:
            if self._phase_index is not None:
                self.audit.end_phase()
            self._phase_index = index
            if self.phase.restarts_schedule and self.current_epoch == self.phase.start_epoch:
                self._plateau = build_plateau(self.plan.schedule, self.task.monitor_mode)
            apply_gradients(self.model, self.phase.learning)
            self.train()
            self.audit.start_phase(self.phase.name, self.phase.learning)
            if self._compiled:
                # A graph traced while a layer was frozen would be reused, and the layer would never learn.
                torch.compiler.reset()
                self._run = torch.compile(self._features_and_outputs)
        else:
            self.train()

    def on_fit_end(self) -> None:
        """Prove the last phase; from here on the averaged weights are the model's."""
        self.audit.end_phase()
        if self._ema is not None:
            self._ema.show()

    # Training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The task's objective plus the strategy's extra losses."""
        targets = batch["targets"]
        if self._batch_transform is not None:
            place = {"epoch": self.current_epoch, "batch_index": batch_idx, "rank": self.global_rank}
            images, targets = self._batch_transform(batch["images"], targets, **place)
            batch = {**batch, "images": images}
        features, outputs = self._forward(batch)
        loss = self.task.objective(outputs, targets)
        inputs = batch.get("activations", batch.get("images"))
        assert inputs is not None
        step = Step(inputs, targets, features, outputs, self.current_epoch, batch_idx)
        for name, extra in self.extras.losses.items():
            value = extra(step)
            self._extra[name] = self._extra.get(name, torch.zeros_like(value)) + value.detach()
            loss = loss + value
        self._steps += 1
        mixed = self._batch_transform is not None
        rows = self.task.rows(outputs, hard_targets(targets) if mixed else targets, training=True)
        self._train.add(*rows, batch["index"], loss)
        every = int(getattr(self.trainer, "log_every_n_steps", 0))  # set by Lightning, not declared
        if every and self.loggers and self.global_step % every == every - 1:
            name = "train/objective_step" if self._objective_differs else "train/loss_step"
            self.log(name, loss.detach(), on_step=True, on_epoch=False)
        return loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set every group's rate for this step."""
        position = self.current_epoch + batch_idx / self.trainer.num_training_batches
        rates = self.plan.rates(position, plateau=self._plateau_factor)
        for group, rate in zip(self.trainer.optimizers[0].param_groups, rates, strict=True):
            group["lr"] = rate

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Take the new weights into the average, if there was a step."""
        if self._ema is not None and self.global_step > self._last_step:
            self._last_step = self.global_step
            self._ema.update()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Note which parameters have received a gradient."""
        self.audit.see_gradients()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's loss, objective where it is another, metrics and rates; stop if they are not numbers.

        Raises:
            DivergedError: the mean training loss is NaN or infinite.
        """
        epoch = self._train.take(self.task, differs=self._objective_differs)
        values = {f"train/{name}": value for name, value in epoch.items()}
        values |= {f"train/{name}": float(total) / max(self._steps, 1) for name, total in self._extra.items()}
        self._extra, self._steps = {}, 0
        position = self.current_epoch + 1 - 1 / self.trainer.num_training_batches
        for group, rate in zip(self.plan.groups, self.plan.rates(position, plateau=self._plateau_factor), strict=True):
            values[f"lr/{group.name}"] = rate
        self.log_dict(values, sync_dist=True)
        row = self._row()
        if self.trainer.is_global_zero:
            self.on_row(row)
        check_finite(values, self.current_epoch, self.plan.base_lr)
        # A training that ends within an epoch (trainer.max_steps) is not validated in it.
        if self._plateau is not None and self._validated_epoch == self.current_epoch:
            self._plateau.step(float(self.trainer.callback_metrics[self.task.monitor]))

    def _row(self) -> Row:
        """Of ``metrics.csv``, before any checkpoint of this epoch is saved."""
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        # Those that an earlier epoch was validated with are still there.
        stale = () if self._validated_epoch == self.current_epoch else ("val/",)
        kept = {name: value for name, value in metrics.items() if "/" in name and not name.startswith(stale)}
        for step in ("train/loss_step", "train/objective_step"):
            kept.pop(step, None)
        place: Row = {"epoch": self.current_epoch, "step": self.global_step, "phase": self.phase.name}
        return {**place, **distinct_rates(kept), "seconds": round(time.perf_counter() - self._epoch_began, 3)}

    # Evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect outputs; metrics are computed once, over the whole split."""
        self._evaluation_step(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As :meth:`validation_step`."""
        self._evaluation_step(batch)

    def on_validation_start(self) -> None:
        """During training, the averaged weights are what is evaluated."""
        if self._ema is not None and self.trainer.state.fn == "fit":
            self._ema.show()

    def on_validation_end(self) -> None:
        """Training goes on with its own weights."""
        if self._ema is not None and self.trainer.state.fn == "fit":
            self._ema.hide()

    def on_validation_epoch_end(self) -> None:
        """Log ``val/…``."""
        self._finish_split("val")
        if self.trainer.sanity_checking:
            return
        self._validated_epoch, found = self.current_epoch, self.predictions["val"]
        if self.trainer.state.fn == "fit":
            self.choice.see(self.task, torch.from_numpy(found.outputs), torch.from_numpy(found.targets))

    def on_test_epoch_end(self) -> None:
        """Log ``test/…``."""
        self._finish_split("test")

    def _evaluation_step(self, batch: Batch) -> None:
        outputs = self._forward(batch)[1]
        self._evaluated.add(*self.task.rows(outputs, batch["targets"]), batch["index"])

    def _finish_split(self, split: str) -> None:
        predictions = self._evaluated.gather(self.task)
        self.predictions[split] = predictions
        values = {f"{split}/{name}": value for name, value in predictions.metrics.items()}
        for name, score in self.extras.scores.items():
            self.other_metrics |= {f"{name}/{split}/{metric}": value for metric, value in score(split).items()}
        values |= {name: value for name, value in self.other_metrics.items() if f"/{split}/" in name}
        # The scores of the chosen checkpoint are the run's outcome and no point of a curve.
        self.log_dict(values, sync_dist=True, logger=None if self.trainer.state.fn == "fit" else False)

    # The forward pass

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if "activations" in batch:
            features = self.model.features_from(batch["activations"], int(batch.get("stages", self._frozen_stages())))
            return features, self.model.head(features).float()
        images = batch["images"]
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        run = self._run if self.training else self._features_and_outputs
        return run(images)

    def _features_and_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features(images)
        return features, self.model.head(features).float()

    def _frozen_stages(self) -> int:
        return self.phase.frozen_stages(self.audit.info)

    # Optimizer and checkpoints

    def configure_optimizers(self) -> Optimizer:
        """All groups that learn in any phase, from the start."""
        groups = torch_groups(self.plan.groups, self.model, weight_decay=self._weight_decay)
        return self._optimizer(groups)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what never changes: its digest stands in for it."""
        state = checkpoint["state_dict"]
        if self._ema is not None:
            state.update({f"model.{name}": tensor for name, tensor in self._ema.averages().items()})
        static = {name: state.pop(f"model.{name}") for name in sorted(self._static) if f"model.{name}" in state}
        checkpoint["headstart"] = {
            "static_digest": self._digest_static(static),
            "received": sorted(self.audit.received),
            "plateau": self._plateau.state_dict() if self._plateau else None,
            "choice": self.choice.state_dict(),
        }
        if self._ema is not None and "optimizer_states" in checkpoint:
            checkpoint["headstart"]["ema"] = self._ema.state_dict()

    def _digest_static(self, static: dict[str, Tensor]) -> str:
        # Once a fit: the audit proves at its end that none of it moved.
        if self._static_digest is None:
            self._static_digest = digest(static)
        return self._static_digest

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put back what was left out, if the present model has exactly that."""
        own = self.model.state_dict()
        static = {name: own[name] for name in sorted(self._static) if name in own}
        saved = checkpoint["headstart"]
        if digest(static) != saved["static_digest"]:
            raise RunError(
                "the checkpoint was made with other frozen weights than backbone.weights gives now; "
                "use the same weights, or start the run again with rerun=all"
            )
        checkpoint["state_dict"].update({f"model.{name}": tensor for name, tensor in static.items()})
        self.audit.received |= set(saved["received"])
        if self._plateau and saved["plateau"]:
            restore_plateau(self._plateau, saved["plateau"])
        self.choice.load_state_dict(saved.get("choice", {}))
        if self._ema is not None and "ema" in saved:
            state = checkpoint["state_dict"]
            averages = {name: state[f"model.{name}"] for name in self._ema.names}
            self._ema.load_state_dict(averages, saved["ema"]["steps"])
            state.update({f"model.{name}": tensor for name, tensor in saved["ema"]["weights"].items()})

    @property
    def _objective_differs(self) -> bool:
        """Whether more than the task's plain loss is minimised."""
        return self.task.weighs or self._batch_transform is not None or bool(self.extras.losses)

    @property
    def _plateau_factor(self) -> float:
        return plateau_factor(self._plateau)


def check_finite(metrics: Mapping[str, float], epoch: int, lr: float) -> None:
    """Hold that the mean training loss and objective of an epoch, counted from 0, are numbers.

    Raises:
        DivergedError: one is not.
    """
    for name in ("loss", "objective"):
        if not np.isfinite(value := metrics.get(f"train/{name}", 0.0)):
            raise DivergedError(
                f"the training {name} became {value} in epoch {epoch + 1}; lower optimizer.lr={lr:g}, warm up "
                "(scheduler.warmup_epochs) or clip gradients (trainer.gradient_clip_val)"
            )
