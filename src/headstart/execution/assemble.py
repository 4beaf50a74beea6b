"""The parts of a run that depend on how it is trained: the module, and what the trainer gets its batches from."""

from dataclasses import dataclass
from pathlib import Path

from headstart.config.settings import RunSettings
from headstart.data.datamodule import ImageDataModule
from headstart.frozen.closed_form import ClosedFormModule, check_closed_form, closed_form_plan
from headstart.heads import ClosedForm
from headstart.model.modes import batchnorm_parameters
from headstart.model.transfer_model import TransferModel
from headstart.store.activations import CachedData
from headstart.store.decide import trainer_obstacle
from headstart.strategies.contract import Strategy, Surroundings
from headstart.tasks import Task
from headstart.training.assemble import build_optimizer, build_plan, ever_learning, wants_channels_last
from headstart.training.audit import Audit
from headstart.training.batch_transform import BatchTransform
from headstart.training.checkpoints import SHARED
from headstart.training.module import TransferModule
from headstart.training.rates import RatePlan


@dataclass(frozen=True)
class Prepared:
    """What training needs of a model under a strategy."""

    plan: RatePlan
    audit: Audit


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
    return Prepared(plan, Audit(model, info, ever_learning(plan)))


def build_module(
    settings: RunSettings, strategy: Strategy, model: TransferModel, surroundings: Surroundings
) -> TransferModule:
    """The LightningModule of a run."""
    task = surroundings.task
    prepared = prepare_strategy(settings, strategy, model)
    trainer = settings.trainer
    channels_last = wants_channels_last(trainer.channels_last, model.backbone)
    if isinstance(model.head, ClosedForm):
        return ClosedFormModule(model, task, prepared.audit, channels_last=channels_last)
    return TransferModule(
        model,
        task,
        prepared.plan,
        prepared.audit,
        optimizer=build_optimizer(settings.optimizer, trainer),
        weight_decay=settings.weight_decay,
        extras=strategy.start(model, surroundings),
        batch_transform=_batch_transform(settings, task),
        ema_decay=settings.ema.decay,
        batchnorm=settings.batchnorm,
        channels_last=channels_last,
        compiled=trainer.compile,
    )


def build_loaders(settings: RunSettings, data: ImageDataModule, module: TransferModule) -> CachedData:
    """What the trainer gets its batches from: stored activations where they can be used, else images.

    Raises:
        CacheError: ``cache=require``, and they cannot be used.
    """
    return CachedData(
        data,
        module.model,
        module.plan.phases,
        module.audit.info,
        settings=settings.cache,
        folder=settings.paths.cache_dir,
        channels_last=module.channels_last,
        whole_features=bool(module.extras.losses),
        obstacle=trainer_obstacle(settings.trainer.switches),
    )


def _batch_transform(settings: RunSettings, task: Task) -> BatchTransform | None:
    choice = settings.batch_transform
    if choice.name == "none":
        return None
    return BatchTransform(choice.name, alpha=choice.alpha, classes=len(task.classes), seed=settings.seed)


def static_folder(run: Path) -> Path:
    """Where the runs of a study share what they all keep frozen."""
    return run.parent / SHARED
