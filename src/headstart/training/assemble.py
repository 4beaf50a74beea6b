"""From choices to objects: data, task, backbone, head, rates and optimizer of one run.

Components take plain arguments; the sizes that the data or the weights decide are added here, never in a YAML.
"""

import inspect
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

from headstart.backbones.contract import Backbone
from headstart.backbones.maps import gather
from headstart.config.rules import STAGES
from headstart.config.settings import Component, RunSettings, TrainerSettings
from headstart.data.datamodule import ImageDataModule
from headstart.data.input_spec import pair
from headstart.model.description import ModelInfo
from headstart.strategies.contract import Strategy
from headstart.strategies.modifiers import on_images, phases_after_head, without
from headstart.tasks import Task, build_task
from headstart.training.rates import RatePlan, Schedule, check_phases, check_warmup, optimizer_groups
from headstart.training.seeds import seed_stream
from headstart.weights.sources import ResolvedWeights


def build_data(choice: Component, *, seed: int, task: str = "auto") -> ImageDataModule:
    """The datamodule, prepared: its classes, sizes and splits are known."""
    data: ImageDataModule = choice.build(seed=seed, task=task)
    data.prepare()
    return data


def build_data_task(settings: RunSettings, data: ImageDataModule) -> Task:
    """The run's task over the data's classes; ``auto`` is what the data are.

    Raises:
        ConfigError: the choices do not fit each other or the classes, or the task does not log what is to be monitored.
    """
    task = build_task(
        settings.task,
        data.classes,
        label_smoothing=settings.loss.label_smoothing,
        class_weights=settings.loss.class_weights,
        train_targets=data.targets("train"),
    )
    if settings.callbacks.checkpoint.monitor is not None:
        task.choose_by(settings.callbacks.checkpoint.monitor)
    return task


def build_backbone(choice: Component, weights: ResolvedWeights, *, seed: int, image_size: Any = None) -> Backbone:
    """The backbone with its weights, on the CPU.

    Args:
        choice: its class and arguments.
        weights: decided.
        seed: of what the weights leave open.
        image_size: pixels, or height and width; None: what the weights expect.
    """
    seed_stream(seed, "backbone")
    backbone: Backbone = choice.without("weights").partial()(weights=weights, image_size=pair(image_size))
    return backbone


def build_head(choice: Component, backbone: Backbone, task: Task, *, seed: int) -> nn.Module:
    """A freshly initialised head from the backbone's features to the task's outputs.

    A head with the key ``stages`` answers for every pixel: the backbone then hands out the maps of that many stages.
    """
    if STAGES in choice.arguments:
        gather(backbone, int(choice.arguments[STAGES]))
    seed_stream(seed, "head")
    head: nn.Module = choice.partial()(backbone.features, task.outputs)
    return head


def build_plan(
    settings: RunSettings, strategy: Strategy, info: ModelInfo, still: frozenset[str] = frozenset()
) -> RatePlan:
    """Phases, parameter groups and rates for a model of this description, checked.

    Args:
        settings: of the run.
        strategy: of the run.
        info: of the model.
        still: parameters that ``batchnorm=eval`` keeps as they are.

    Raises:
        ConfigError: the strategy's choices do not fit the model or the number of epochs.
    """
    max_epochs = settings.trainer.max_epochs
    phases = phases_after_head(strategy, info, max_epochs=max_epochs, head_epochs=settings.head_epochs)
    if settings.batchnorm == "eval":
        phases = without(phases, still, reason="batchnorm=eval")
    if settings.batch_transform.name != "none":
        phases = on_images(phases, f"batch_transform={settings.batch_transform.name} mixes images")
    check_phases(phases, info, max_epochs=max_epochs)
    plan = RatePlan(settings.lr, phases, optimizer_groups(phases, info), Schedule(**settings.scheduler))
    check_warmup(plan)
    return plan


def ever_learning(plan: RatePlan) -> frozenset[str]:
    """Names of the parameters that learn in any phase."""
    return frozenset(name for phase in plan.phases for name in phase.learning)


def build_optimizer(choice: Component, trainer: TrainerSettings) -> partial[Optimizer]:
    """What makes the run's optimizer from torch's parameter groups."""
    made: partial[Optimizer] = choice.partial(**_fused(choice, trainer))
    return made


def _fused(choice: Component, trainer: TrainerSettings) -> dict[str, bool]:
    """``fused=True`` where torch's optimizer has it for this device: the same update in a third of the time."""
    known = "fused" in inspect.signature(choice.factory).parameters
    # Lightning unscales 16-bit gradients before clipping, which a fused optimizer does by itself. With bfloat16 there
    # is nothing to unscale, but Lightning refuses to clip all the same.
    clips = bool(trainer.gradient_clip_val) and trainer.precision.endswith("-mixed")
    usable = trainer.accelerator in ("cpu", "cuda", "gpu") and trainer.precision != "16-mixed" and not clips
    return {"fused": True} if known and usable and "fused" not in choice.arguments else {}


def wants_channels_last(choice: bool | str, backbone: Backbone) -> bool:
    """Whether images and convolutions have their channels last."""
    return backbone.features.layout == "NCHW" if choice == "auto" else bool(choice)
