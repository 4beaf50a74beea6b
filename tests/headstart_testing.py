"""A tiny real run for tests: few digits at 32 pixels, a real Trainer, no run directory."""

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from headstart.backbones import TimmBackbone
from headstart.data import Digits
from headstart.heads import Linear
from headstart.model.transfer_model import TransferModel
from headstart.strategies.contract import Extras, Strategy
from headstart.tasks import build_task
from headstart.training.audit import Audit
from headstart.training.module import TransferModule
from headstart.training.quiet import quiet_lightning
from headstart.training.rates import RatePlan, Schedule, check_phases, optimizer_groups
from headstart.training.seeds import StepSeed, seed_stream
from headstart.weights.sources import NO_WEIGHTS

CLASSES = tuple("0123456789")


@dataclass
class TinyRun:
    """The objects of one run."""

    module: TransferModule
    data: Digits
    trainer: pl.Trainer

    def fit(self, **choices: Any) -> None:
        """Train."""
        self.trainer.fit(self.module, datamodule=self.data, **choices)


class _StopAfter(pl.Callback):
    """Ends a fit early without telling the module: the schedule stays that of the whole run."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def tiny_model(backbone: dict[str, Any], *, seed: int = 0, size: int = 32) -> TransferModel:
    """A randomly initialised network with a linear head for digits."""
    seed_stream(seed, "backbone")
    network = TimmBackbone(weights=NO_WEIGHTS, image_size=(size, size), **backbone)
    seed_stream(seed, "head")
    return TransferModel(network, Linear(network.features, len(CLASSES)))


def tiny_run(
    strategy: Strategy,
    *,
    backbone: dict[str, Any] | None = None,
    model: TransferModel | None = None,
    max_epochs: int = 2,
    lr: float = 0.01,
    seed: int = 0,
    stop_after: int | None = None,
    callbacks: list[pl.Callback] | None = None,
    batchnorm: Any = "train",
    schedule: Schedule | None = None,
    **trainer: Any,
) -> TinyRun:
    """A run of three digits a class over a randomly initialised network."""
    quiet_lightning()
    model = model or tiny_model(backbone or {"name": "resnet18"}, seed=seed)
    info = model.describe()
    phases = strategy.phases(info, max_epochs=max_epochs)
    check_phases(phases, info, max_epochs=max_epochs)
    plan = RatePlan(lr, phases, optimizer_groups(phases, info), schedule or Schedule("cosine"))
    audit = Audit(model, info, frozenset(name for phase in phases for name in phase.learning))
    module = TransferModule(
        model,
        build_task("multiclass", CLASSES),
        plan,
        audit,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=lr, momentum=0.9),
        extras=Extras(strategy.losses(model)),
        batchnorm=batchnorm,
    )
    audit.start()
    data = Digits(shots=3, batch_size=16, seed=seed, augment="none", image_size=32, num_workers=0)
    data.prepare()
    data.configure(model.backbone.input_spec)
    extra = [_StopAfter(stop_after)] if stop_after is not None else []
    built = pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=2,
        callbacks=[StepSeed(seed), *extra, *(callbacks or [])],
        **{"num_sanity_val_steps": 0, "enable_checkpointing": False, **trainer},
    )
    seed_stream(seed, "training")
    return TinyRun(module, data, built)
