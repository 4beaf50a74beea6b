"""What a run offers its strategy: other finished runs, other tasks, a device."""

from pathlib import Path

import torch

from headstart.backbones.contract import Backbone
from headstart.config.settings import Component, RunSettings, TrainerSettings
from headstart.data.datamodule import ImageDataModule
from headstart.errors import ConfigError
from headstart.execution.load import load
from headstart.strategies.contract import OtherRun, OtherTask, Strategy, Surroundings
from headstart.tasks import Task, build_task
from headstart.training.assemble import build_data, build_head


def build_surroundings(
    settings: RunSettings, strategy: Strategy, backbone: Backbone, task: Task, data: ImageDataModule
) -> Surroundings:
    """Load and build what a strategy may ask for.

    Raises:
        HeadstartError: another run cannot be loaded, or another task's data cannot be used.
    """
    runs = {name: _other_run(name, path) for name, path in strategy.references.items()}
    return Surroundings(task, data, device_of(settings.trainer), runs, _other_tasks(settings, backbone))


def device_of(trainer: TrainerSettings) -> torch.device:
    """Where passes over data before training run: the accelerator of the training, its first device."""
    kind = {"gpu": "cuda"}.get(trainer.accelerator, trainer.accelerator)
    devices = trainer.devices
    index = devices[0] if isinstance(devices, list) and devices else 0
    return torch.device(kind, index) if kind == "cuda" else torch.device(kind)


def _other_run(name: str, path: str) -> OtherRun:
    folder = Path(path).expanduser()
    if folder.suffix == ".ckpt":  # <run>/checkpoints/best.ckpt
        folder = folder.parent.parent
    if not folder.is_dir():
        raise ConfigError(f"strategy.{name}={path}: there is no such run directory; give the folder of a finished run")
    model = load(folder)
    return OtherRun(model.network.requires_grad_(False), model.classes, model.transform.spec)


def _other_tasks(settings: RunSettings, backbone: Backbone) -> dict[str, OtherTask]:
    tasks = {}
    for name, choice in settings.sources.items():
        size = [backbone.input_spec.height, backbone.input_spec.width]
        sized = Component(choice.datamodule.target, {**choice.datamodule.arguments, "image_size": size})
        data = build_data(sized, seed=settings.seed, task=choice.task)
        data.configure(backbone.input_spec)
        task = build_task(
            choice.task,
            data.classes,
            label_smoothing=settings.loss.label_smoothing,
            train_targets=data.targets("train"),
        )
        head = build_head(choice.head or settings.head, backbone, task, seed=settings.seed)
        tasks[name] = OtherTask(data, task, head)
    return tasks
