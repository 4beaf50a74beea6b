"""A training of any strategy on any backbone at a size that takes seconds, observed from outside."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from headstart.backbones.contract import Backbone
from headstart.config import compose
from headstart.config.compose import plain
from headstart.config.settings import RunSettings
from headstart.execution.assemble import build_module, prepare_strategy
from headstart.execution.surroundings import build_surroundings
from headstart.heads.task_head import TaskHead
from headstart.model.transfer_model import TransferModel, is_norm
from headstart.strategies import OtherRun, Phase, Strategy, Surroundings
from headstart.system.catalog import conf_dir, options
from headstart.training.assemble import build_backbone, build_data, build_data_task, build_head
from headstart.training.checkpoints import AtomicCheckpointIO
from headstart.training.module import TransferModule
from headstart.training.seeds import StepSeed, seed_stream
from headstart.weights.report import SourceClassifier
from headstart.weights.sources import NO_WEIGHTS

#: Real networks, some with fewer layers of each kind: what they are made of is what matters here.
BACKBONES: dict[str, tuple[str, ...]] = {
    # By default the last scale of each random block is 0: where it is frozen, nothing in the block has a gradient.
    "resnet18": ("+backbone.layers=[1,1,1,1]", "+backbone.zero_init_last=false"),
    "small_cnn": (),
    "mobilenetv3_small_100": (),
    "convnext_atto": ("+backbone.depths=[1,1,2,1]",),
    "vit_tiny_patch16_224": ("+backbone.depth=3",),
}

#: Every strategy there is, with what makes it short and its phases at least two epochs long; a name may be followed by
#: a variant.
STRATEGIES: dict[str, tuple[str, ...]] = {option.name: () for option in options("strategy", [conf_dir()])} | {
    "gradual": ("trainer.max_epochs=6", "strategy.full_by=0.7", "strategy.head_epochs=2"),
    "lp_ft": ("trainer.max_epochs=4",),
    "distill": ("strategy.teacher=teacher", "strategy.feature_weight=0.5"),
    "lora": ("strategy.rank=2",),
    # Choices that go with any strategy.
    "full batchnorm_eval": ("batchnorm=eval",),
    "full batchnorm_affine": ("batchnorm=affine",),
    "full ema": ("ema.decay=0.9",),
    "full mixup": ("batch_transform=mixup",),
    "layerwise head_first": ("head_epochs=2", "trainer.max_epochs=4"),
}


@dataclass
class Built:
    """A module ready to be trained, with what it was made of."""

    config: dict[str, Any]
    strategy: Strategy
    module: TransferModule
    data: Any

    @property
    def model(self) -> TransferModel:
        return self.module.model


def build(folder: Path, strategy: str, backbone: str, *extra: str) -> Built:
    """Everything before training, as a run does it. ``folder`` holds images of three classes."""
    name = strategy.split()[0]
    overrides = [
        f"backbone={backbone}",
        f"strategy={name}",
        "datamodule=folder",
        f"datamodule.root={folder}",
        "datamodule.image_size=32",
        "datamodule.batch_size=6",
        "datamodule.num_workers=0",
        "backbone.weights=none",
        "trainer=cpu",
        "trainer.precision=32-true",
        "trainer.max_epochs=2",
        # Small steps and smooth labels: a head that is sure of everything gives no gradient to move anything.
        "optimizer.lr=0.001",
        "loss.label_smoothing=0.1",
        "scheduler=none",
        *BACKBONES[backbone],
        *STRATEGIES[strategy],
        *extra,
    ]
    if name == "share":
        overrides.append("+datamodule@sources.other.datamodule=folder")
        overrides += [f"sources.other.datamodule.root={folder}", "sources.other.datamodule.num_workers=0"]
    config = copy.deepcopy(composed(tuple(overrides)))
    settings = RunSettings.of(config)
    choice: Strategy = settings.strategy.build()
    data = build_data(settings.datamodule, seed=settings.seed, task=settings.task)
    network = untrained(settings)
    torch.manual_seed(5)
    network.source_classifier = SourceClassifier(torch.randn(7, network.feature_dim), torch.zeros(7))
    data.configure(network.input_spec)
    task = build_data_task(settings, data)
    model = TransferModel(network, build_head(settings.head, network, task, seed=settings.seed))
    if choice.references:
        torch.manual_seed(6)
        teacher = untrained(settings)
        other = TransferModel(teacher, build_head(settings.head, teacher, task, seed=settings.seed))
        runs = {"teacher": OtherRun(other, task.classes, data.spec)}
        surroundings = Surroundings(task, data, torch.device("cpu"), runs)
    else:
        surroundings = build_surroundings(settings, choice, network, task, data)
    seed_stream(settings.seed, "strategy")
    choice.prepare(model, surroundings)
    prepared = prepare_strategy(settings, choice, model)
    module = build_module(settings, prepared, task, choice.start(model, surroundings))
    module.audit.start()
    return Built(config, choice, module, data)


def untrained(settings: RunSettings) -> Backbone:
    """The chosen network with random weights."""
    size = settings.datamodule.arguments["image_size"]
    return build_backbone(settings.backbone, NO_WEIGHTS, seed=settings.seed, image_size=size)


@cache
def composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Plain choices; composing takes longer than a tiny training."""
    return plain(compose(overrides))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def moving_buffers(model: TransferModel, phase: Phase, *, batchnorm: str) -> set[str]:
    """Buffers that must change: statistics of BatchNorm layers whose own parameters learn, in every task's copy."""
    names = set()
    for path, module in model.named_modules():
        own = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if is_norm(module) and set(own) & phase.learning and batchnorm == "train":
            names |= {f"{path}.{name}" for name, _ in module.named_buffers(recurse=False)}
    shared = {name.removeprefix("backbone.").replace(".", "_") for name in names}
    tasks = [task for task, head in model.auxiliary.items() if isinstance(head, TaskHead)]
    return names | {f"auxiliary.{task}.{name}" for task in tasks for name in shared}


@dataclass
class Observer(pl.Callback):
    """Compares, at each phase's end, what moved with what had to, and at each step the rates with those stated."""

    built: Built
    problems: list[str] = field(default_factory=list)
    phases_seen: list[str] = field(default_factory=list)
    _before: dict[str, Tensor] = field(default_factory=dict)

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and trainer.current_epoch == module.phase.start_epoch:
            self._before = state_of(module.model)
            self.phases_seen.append(module.phase.name)

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: torch.optim.Optimizer) -> None:
        names = {id(parameter): name for name, parameter in module.model.named_parameters()}
        stated = {name: group.lr_mult for group in module.phase.groups for name in group.parameters}
        held = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        if sorted(held) != sorted({name for phase in module.plan.phases for name in phase.learning}):
            self.problems.append("the optimizer does not hold exactly what ever learns")
        base = self.built.config["optimizer"]["lr"]
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                if group["lr"] != base * stated.get(name, 0.0):
                    self.problems.append(f"{name} learns at {group['lr']}, not {base * stated.get(name, 0.0)}")
                if parameter.requires_grad != (name in stated):
                    self.problems.append(f"{name}: requires_grad is {parameter.requires_grad}")

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        phase = module.phase
        if trainer.current_epoch != phase.end_epoch - 1 or not self._before:
            return
        after = state_of(module.model)
        statistics = moving_buffers(module.model, phase, batchnorm=self.built.config["batchnorm"])
        expected = phase.learning | statistics
        moved = {name for name in after if not torch.equal(after[name], self._before[name])}
        self.problems += [f"{name} moved in phase {phase.name}" for name in sorted(moved - expected)]
        self.problems += [f"{name} did not move in phase {phase.name}" for name in sorted(expected - moved)]


def every_epoch(folder: Path) -> ModelCheckpoint:
    """Saves a checkpoint after every epoch, as ``epoch<number>.ckpt``, as runs save their last one."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="epoch{epoch}",
        auto_insert_metric_name=False,
        save_top_k=-1,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
    )


def train(built: Built, *callbacks: pl.Callback, resume: Path | None = None) -> pl.Trainer:
    """Fit, from a checkpoint if there is one."""
    trainer = pl.Trainer(
        max_epochs=built.config["trainer"]["max_epochs"],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        callbacks=[StepSeed(built.config["seed"]), *callbacks],
    )
    seed_stream(built.config["seed"], "training")
    trainer.fit(built.module, datamodule=built.data, ckpt_path=resume)
    return trainer


def middles(phases: Sequence[Phase]) -> list[int]:
    """One epoch of each phase after which the phase goes on, if there is one; else its last."""
    last = phases[-1].end_epoch - 1
    return sorted({min(phase.start_epoch, last - 1) for phase in phases} - {-1})
