"""From resolved choices to objects: the data, the model and the module of one run.

Components are named by ``_target_`` and take plain arguments; the sizes that the data or the weights decide are
added here, never in a YAML.
"""

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer

from headstart.backbones.contract import Backbone
from headstart.data.datamodule import ImageDataModule
from headstart.frozen.closed_form import ClosedFormModule, check_closed_form, closed_form_plan
from headstart.heads import ClosedForm
from headstart.model.description import ModelInfo
from headstart.model.modes import batchnorm_parameters
from headstart.model.transfer_model import TransferModel
from headstart.store.activations import CachedData
from headstart.store.decide import Settings, trainer_obstacle
from headstart.strategies.contract import Strategy
from headstart.strategies.modifiers import on_images, phases_after_head, without
from headstart.tasks import Task, build_task
from headstart.training.audit import Audit
from headstart.training.batch_transform import BatchTransform
from headstart.training.module import TransferModule
from headstart.training.rates import RatePlan, Schedule, check_phases, optimizer_groups
from headstart.weights.sources import ResolvedWeights

_SEED_STREAMS = {"backbone": 1, "head": 2, "training": 3, "strategy": 4}


def instantiate(choice: dict[str, Any], **arguments: Any) -> Any:
    """What ``choice`` names by ``_target_``, with its own values and ``arguments``."""
    return hydra.utils.instantiate(OmegaConf.create(choice), **arguments, _convert_="all")


def seed_stream(seed: int, stream: str) -> None:
    """Seed every generator for one purpose, so that a head starts the same whatever was built before it."""
    value = int(np.random.SeedSequence([seed, _SEED_STREAMS[stream]]).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def build_data(config: dict[str, Any]) -> ImageDataModule:
    """The datamodule, prepared: its classes, sizes and splits are known."""
    data: ImageDataModule = instantiate(config["datamodule"], seed=config["seed"], task=config.get("task", "auto"))
    data.prepare()
    return data


def build_run_task(config: dict[str, Any], data: ImageDataModule) -> Task:
    """The task over the data's classes."""
    return build_task(
        config["task"],
        data.classes,
        label_smoothing=config["loss"]["label_smoothing"],
        class_weights=config["loss"]["class_weights"],
        train_targets=data.targets("train"),
    )


def build_backbone(config: dict[str, Any], weights: ResolvedWeights) -> Backbone:
    """The backbone with its weights, on the CPU."""
    seed_stream(config["seed"], "backbone")
    choice = dict(config["backbone"])
    choice["weights"] = None
    size = config["datamodule"].get("image_size")
    partial = hydra.utils.instantiate(OmegaConf.create(choice), _partial_=True, _convert_="all")
    backbone: Backbone = partial(weights=weights, image_size=_pair(size))
    return backbone


def build_model(config: dict[str, Any], backbone: Backbone, task: Task) -> TransferModel:
    """The backbone and a freshly initialised head of the sizes that the backbone and the task give."""
    return TransferModel(backbone, build_head(config["head"], backbone, task, seed=config["seed"]))


def build_head(choice: dict[str, Any], backbone: Backbone, task: Task, *, seed: int) -> nn.Module:
    """A freshly initialised head from the backbone's features to the task's outputs."""
    seed_stream(seed, "head")
    head: nn.Module = instantiate({**choice, "_partial_": True})(backbone.features, task.outputs)
    return head


@dataclass(frozen=True)
class Prepared:
    """What training needs of a model under a strategy."""

    plan: RatePlan
    audit: Audit


def prepare_strategy(config: dict[str, Any], strategy: Strategy, model: TransferModel) -> Prepared:
    """Phases, parameter groups and rates of a strategy for a model, checked.

    Raises:
        ConfigError: the strategy's choices do not fit the model or the number of epochs.
    """
    info = model.describe()
    if isinstance(model.head, ClosedForm):
        check_closed_form(config, strategy, info)
        plan = closed_form_plan(info)
        return Prepared(plan, Audit(model, info, ever_learning(plan)))
    still = batchnorm_parameters(model) if config["batchnorm"] == "eval" else frozenset()
    plan = build_plan(config, strategy, info, still)
    return Prepared(plan, Audit(model, info, ever_learning(plan)))


def build_plan(
    config: dict[str, Any], strategy: Strategy, info: ModelInfo, still: frozenset[str] = frozenset()
) -> RatePlan:
    """Phases, parameter groups and rates for a model of this description, checked.

    Args:
        config: of the run.
        strategy: of the run.
        info: of the model.
        still: parameters that ``batchnorm=eval`` keeps as they are.

    Raises:
        ConfigError: the strategy's choices do not fit the model or the number of epochs.
    """
    max_epochs = config["trainer"]["max_epochs"]
    phases = phases_after_head(strategy, info, max_epochs=max_epochs, head_epochs=config["head_epochs"])
    if config["batchnorm"] == "eval":
        phases = without(phases, still, reason="batchnorm=eval")
    if config["batch_transform"]["name"] != "none":
        phases = on_images(phases, f"batch_transform={config['batch_transform']['name']} mixes images")
    check_phases(phases, info, max_epochs=max_epochs)
    schedule = Schedule(**{key: value for key, value in config["scheduler"].items() if key != "_target_"})
    return RatePlan(config["optimizer"]["lr"], phases, optimizer_groups(phases, info), schedule)


def ever_learning(plan: RatePlan) -> frozenset[str]:
    """Names of the parameters that learn in any phase."""
    return frozenset(name for phase in plan.phases for name in phase.learning)


def build_optimizer(config: dict[str, Any]) -> Callable[[list[dict[str, Any]]], Optimizer]:
    """What makes the run's optimizer from torch's parameter groups."""
    made: Callable[[list[dict[str, Any]]], Optimizer] = instantiate(
        {**config["optimizer"], **_fused(config), "_partial_": True}
    )
    return made


def build_module(config: dict[str, Any], strategy: Strategy, model: TransferModel, task: Task) -> TransferModule:
    """The LightningModule of a run."""
    prepared = prepare_strategy(config, strategy, model)
    trainer = config["trainer"]
    if isinstance(model.head, ClosedForm):
        channels_last = wants_channels_last(trainer["channels_last"], model.backbone)
        return ClosedFormModule(model, task, prepared.audit, channels_last=channels_last)
    return TransferModule(
        model,
        task,
        prepared.plan,
        prepared.audit,
        optimizer=build_optimizer(config),
        weight_decay=config["optimizer"].get("weight_decay", 0.0),
        losses=strategy.losses(model),
        scores=strategy.scores(model),
        batch_transform=_batch_transform(config, task),
        ema_decay=config["ema"]["decay"],
        batchnorm=config["batchnorm"],
        channels_last=wants_channels_last(trainer["channels_last"], model.backbone),
        compiled=trainer["compile"],
    )


def build_loaders(config: dict[str, Any], data: ImageDataModule, module: TransferModule) -> CachedData:
    """What the trainer gets its batches from: stored activations where they can be used, else images.

    Raises:
        CacheError: ``cache=require``, and they cannot be used.
    """
    return CachedData(
        data,
        module.model,
        module.plan.phases,
        module.audit.info,
        settings=Settings(**config["cache"]),
        folder=config["paths"]["cache_dir"],
        channels_last=module.channels_last,
        whole_features=bool(module.losses),
        obstacle=trainer_obstacle(config["trainer"]),
    )


def _fused(config: dict[str, Any]) -> dict[str, bool]:
    """``fused=True`` where torch's optimizer has it for this device: the same update in a third of the time."""
    optimizer: Any = hydra.utils.get_class(config["optimizer"]["_target_"])
    known = "fused" in inspect.signature(optimizer).parameters
    # Lightning unscales 16-bit gradients before clipping, which a fused optimizer does by itself. With bfloat16 there
    # is nothing to unscale, but Lightning refuses to clip all the same.
    trainer = config["trainer"]
    clips = bool(trainer["gradient_clip_val"]) and str(trainer["precision"]).endswith("-mixed")
    usable = trainer["accelerator"] in ("cpu", "cuda", "gpu") and trainer["precision"] != "16-mixed" and not clips
    return {"fused": True} if known and usable and "fused" not in config["optimizer"] else {}


def _batch_transform(config: dict[str, Any], task: Task) -> BatchTransform | None:
    choice = config["batch_transform"]
    if choice["name"] == "none":
        return None
    return BatchTransform(choice["name"], alpha=choice["alpha"], classes=len(task.classes), seed=config["seed"])


def wants_channels_last(choice: bool | str, backbone: Backbone) -> bool:
    """Whether images and convolutions have their channels last."""
    return backbone.features.layout == "NCHW" if choice == "auto" else bool(choice)


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    if isinstance(size, int):
        return (size, size)
    height, width = size
    return (int(height), int(width))


def static_folder(run: Path) -> Path:
    """Where the runs of a study share what they all keep frozen."""
    return run.parent / ".frozen"
