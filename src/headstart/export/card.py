"""What goes along with an exported model, for machines: where it comes from, its classes and its preprocessing."""

import math
import shlex
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from headstart.data.input_spec import InputSpec
from headstart.runs.result import Result
from headstart.tasks import Task


def describe(task: Task, result: Result, config: Mapping[str, Any], spec: InputSpec, *, licence: str) -> dict[str, Any]:
    """What every export says.

    Args:
        task: of the model.
        result: of its run.
        config: the run's resolved choices.
        spec: of the images.
        licence: of the weights; empty: that of the weights the run started from.
    """
    data, sizes = result.data, result.data["sizes"]
    training = {"seed": config["seed"], "max_epochs": config["trainer"]["max_epochs"], "loss": config["loss"]}
    return {
        "source": f"{data['name']}: {sizes['train']} training images, {len(task.classes)} classes",
        "data": {key: data[key] for key in ("name", "fingerprint", "content", "sizes") if key in data},
        "task": task.name,
        "classes": list(task.classes),
        **{name: value for name, value in task.record().items() if name in ("temperature", "thresholds")},
        "input_spec": spec.as_dict(),
        "metrics": dict(result.metrics),
        "recipe": {
            **{group: config[group] for group in ("strategy", "optimizer", "scheduler", "datamodule", "head")},
            **training,
            "precision": config["trainer"]["precision"],
        },
        "command": shlex.join(["python", "train.py", *map(str, result.config.get("overrides", ()))]),
        "fingerprint": result.fingerprint,
        "started_from": {key: result.weights.get(key, "") for key in ("source", "sha256")},
        "licence": licence or result.weights.get("licence") or "not stated",
        "headstart": metadata.version("headstart"),
    }


def preprocessing(spec: InputSpec) -> list[dict[str, Any]]:
    """From a decoded image to the network's input, step by step."""
    return [
        {"convert": {1: "L", 3: "RGB"}.get(spec.channels, f"{spec.channels} channels")},
        {"resize": _resize(spec), "interpolation": spec.interpolation, "antialias": spec.interpolation != "nearest"},
        {"center_crop": [spec.height, spec.width]},
        {"multiply": 1 / 255},
        {"subtract": list(spec.mean), "divide": list(spec.std)},
        {"layout": "NCHW", "dtype": "float32"},
    ]


def scaled_size(spec: InputSpec) -> tuple[int, int]:
    """Height and width before the crop, as timm rounds them."""
    return math.floor(spec.height / spec.crop_pct), math.floor(spec.width / spec.crop_pct)


def _resize(spec: InputSpec) -> dict[str, Any]:
    height, width = scaled_size(spec)
    if spec.crop_mode == "squash":
        return {"to": [height, width]}
    if spec.crop_mode == "border":
        return {"to_fit_into": [height, width], "then_pad_with": [round(255 * value) for value in spec.mean]}
    return {"shorter_side_to": height} if height == width else {"to_cover": [height, width]}
