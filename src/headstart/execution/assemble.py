"""The parts of a run that depend on how it is trained: its phases, the module, and what its batches come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from headstart.config.settings import RunSettings, TrainerSettings
from headstart.data.datamodule import ImageDataModule
from headstart.frozen.closed_form import check_closed_form, closed_form_plan
from headstart.heads import ClosedForm
from headstart.model.modes import BatchNormMode, batchnorm_parameters
from headstart.model.transfer_model import TransferModel
from headstart.store.activations import CachedData
from headstart.store.decide import trainer_obstacle
from headstart.strategies.contract import Extras, Strategy
from headstart.tasks import Task
from headstart.training.assemble import build_optimizer, build_plan, ever_learning, wants_channels_last
from headstart.training.audit import Audit, StageRow, stage_rows, static_names
from headstart.training.batch_transform import BatchTransform
from headstart.training.checkpoints import SHARED
from headstart.training.module import TransferModule
from headstart.training.rates import RatePlan


@dataclass(frozen=True)
class Prepared:
    """A model under a strategy, before training.

    Attributes:
        plan: phases, parameter groups and rates.
        audit: of the model.
        batchnorm: as in the configuration.
    """

    plan: RatePlan
    audit: Audit
    batchnorm: BatchNormMode

    @property
    def model(self) -> TransferModel:
        """What is to be trained."""
        return self.audit.model

    def show_phase(self, index: int) -> list[StageRow]:
        """Put the model into the modes of a phase and describe what learns in it."""
        return stage_rows(self.model, self.audit.info, self.plan, index, batchnorm=self.batchnorm)

    def static_state(self) -> dict[str, Tensor]:
        """Parameters and buffers that no phase changes, by name within the model."""
        own = self.model.state_dict()
        static = static_names(self.audit, self.plan.phases, batchnorm=self.batchnorm)
        return {name: own[name] for name in sorted(static) if name in own}

    def phase_tables(self) -> list[dict[str, Any]]:
        """The ``phases`` of ``audit.json``."""
        return [
            {
                "name": phase.name,
                "start_epoch": phase.start_epoch,
                "end_epoch": phase.end_epoch,
                "frozen_stages": phase.frozen_stages(self.audit.info),
                "stages": [vars(row) for row in self.show_phase(index)],
            }
            for index, phase in enumerate(self.plan.phases)
        ]


def prepare_strategy(settings: RunSettings, strategy: Strategy, model: TransferModel) -> Prepared:
    """Phases, parameter groups and rates of a strategy for a model, checked.

    Raises:
        ConfigError: the strategy's choices do not fit the model or the number of epochs.
    """
    info = model.describe()
    if isinstance(model.head, ClosedForm):
        check_closed_form(settings, strategy, info)
        plan = closed_form_plan(info)
    else:
        still = batchnorm_parameters(model) if settings.batchnorm == "eval" else frozenset()
        plan = build_plan(settings, strategy, info, still)
    return Prepared(plan, Audit(model, info, ever_learning(plan)), settings.batchnorm)


def build_module(settings: RunSettings, prepared: Prepared, task: Task, extras: Extras) -> TransferModule:
    """The LightningModule of a run."""
    trainer = settings.trainer
    return TransferModule(
        prepared.model,
        task,
        prepared.plan,
        prepared.audit,
        optimizer=build_optimizer(settings.optimizer, trainer),
        weight_decay=settings.weight_decay,
        extras=extras,
        batch_transform=_batch_transform(settings, task),
        ema_decay=settings.ema.decay,
        batchnorm=settings.batchnorm,
        channels_last=wants_channels_last(trainer.channels_last, prepared.model.backbone),
        compiled=trainer.compile,
    )


def build_loaders(
    settings: RunSettings, data: ImageDataModule, prepared: Prepared, extras: Extras | None = None
) -> CachedData:
    """What training gets its batches from: stored activations where they can be used, else images.

    Raises:
        CacheError: ``cache=require``, and they cannot be used.
    """
    model = prepared.model
    return CachedData(
        data,
        model,
        prepared.plan.phases,
        prepared.audit.info,
        settings=settings.cache,
        folder=settings.paths.cache_dir,
        channels_last=wants_channels_last(settings.trainer.channels_last, model.backbone),
        whole_features=extras is not None and bool(extras.losses),
        obstacle=trainer_obstacle(settings.trainer.switches),
    )


def build_bare_trainer(settings: TrainerSettings) -> pl.Trainer:
    """Lightning's device, precision and limits, for what is trained without its loops."""
    trainer = pl.Trainer(
        **settings.switches,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.strategy.setup_environment()
    return trainer


def _batch_transform(settings: RunSettings, task: Task) -> BatchTransform | None:
    choice = settings.batch_transform
    if choice.name == "none":
        return None
    return BatchTransform(choice.name, alpha=choice.alpha, classes=len(task.classes), seed=settings.seed)


def static_folder(run: Path) -> Path:
    """Where the runs of a study share what they all keep frozen."""
    return run.parent / SHARED
