"""What a run offers its strategy: other finished runs, other tasks, a device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from headstart.backbones.contract import Backbone
from headstart.errors import ConfigError
from headstart.execution.assemble import build_data, build_head
from headstart.execution.load import load_run
from headstart.strategies.contract import OtherRun, OtherTask, Strategy, Surroundings
from headstart.tasks import build_task


def build_surroundings(config: dict[str, Any], strategy: Strategy, backbone: Backbone) -> Surroundings:
    """Load and build what a strategy may ask for.

    Raises:
        HeadstartError: another run cannot be loaded, or another task's data cannot be used.
    """
    runs = {name: _other_run(name, path) for name, path in strategy.references.items()}
    return Surroundings(device_of(config["trainer"]), runs, _other_tasks(config, backbone))


def device_of(trainer: Mapping[str, Any]) -> torch.device:
    """Where passes over data before training run: the accelerator of the training, its first device."""
    kind = {"gpu": "cuda"}.get(trainer["accelerator"], trainer["accelerator"])
    devices = trainer["devices"]
    index = devices[0] if isinstance(devices, list) and devices else 0
    return torch.device(kind, index) if kind == "cuda" else torch.device(kind)


def _other_run(name: str, path: str) -> OtherRun:
    folder = Path(path).expanduser()
    if folder.suffix == ".ckpt":  # <run>/checkpoints/best.ckpt
        folder = folder.parent.parent
    if not folder.is_dir():
        raise ConfigError(f"strategy.{name}={path}: there is no such run directory; give the folder of a finished run")
    loaded = load_run(folder)
    return OtherRun(loaded.model.eval().requires_grad_(False), loaded.classes, loaded.input_spec)


def _other_tasks(config: dict[str, Any], backbone: Backbone) -> dict[str, OtherTask]:
    tasks = {}
    for name, choice in config["sources"].items():
        data = build_data({**choice, "seed": config["seed"]})
        data.image_size = (backbone.input_spec.height, backbone.input_spec.width)
        data.configure(backbone.input_spec)
        task = build_task(
            choice.get("task", "auto"),
            data.classes,
            label_smoothing=config["loss"]["label_smoothing"],
            train_targets=data.targets("train"),
        )
        head = build_head(choice.get("head", config["head"]), backbone, task, seed=config["seed"])
        tasks[name] = OtherTask(data, task, head)
    return tasks
