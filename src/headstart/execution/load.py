"""A finished run, ready to use again: its model, classes and preprocessing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.config.settings import Component
from headstart.data.input_spec import InputSpec
from headstart.data.transforms import EvalTransform
from headstart.errors import RunError
from headstart.export.backbone_file import export_model
from headstart.model.transfer_model import TransferModel
from headstart.runs.reader import read_config
from headstart.runs.result import Result, read_result
from headstart.tasks import Task, build_task
from headstart.training.assemble import build_backbone, build_head
from headstart.training.checkpoints import load_final, load_weights
from headstart.weights.sources import NO_WEIGHTS


@dataclass(frozen=True)
class LoadedRun:
    """What a finished run learned.

    Attributes:
        path: the run directory.
        config: its resolved choices.
        result: its ``result.json``.
        model: with the weights of the chosen checkpoint, in evaluation mode, on the CPU.
        task: turns outputs into probabilities.
        classes: in the order of the probabilities.
        input_spec: of the images.
        eval_transform: from a decoded image to ``(C, H, W)``, exactly as in the run.
    """

    path: Path
    config: dict[str, Any]
    result: Result
    model: TransferModel
    task: Task
    classes: tuple[str, ...]
    input_spec: InputSpec
    eval_transform: EvalTransform


def load_run(path: str | Path) -> LoadedRun:
    """Rebuild the model of a finished run from its directory alone.

    Raises:
        RunError: the run is not finished, or a file of it is missing or damaged.
    """
    path = Path(path)
    result = read_result(path)
    if result.status != "done":
        raise RunError(f"{path} is not finished: {result.error}; run it again first")
    config = read_config(path)
    spec = InputSpec.from_dict(result.details["input_spec"])
    classes = tuple(result.data["classes"])
    task = build_task(result.details["task"], classes, record=result.details.get("task_record"))
    seed, size = config["seed"], (spec.height, spec.width)
    backbone = build_backbone(Component.of(config["backbone"]), NO_WEIGHTS, seed=seed, image_size=size)
    model = TransferModel(backbone, build_head(Component.of(config["head"]), backbone, task, seed=seed))
    strategy = Component.of(config["strategy"]).build()
    if not load_final(model, path / "checkpoints"):
        strategy.restore(model)
        load_weights(model, path / "checkpoints")
        strategy.merge(model)
    return LoadedRun(path, config, result, model.eval(), task, classes, spec, EvalTransform(spec))


def export_run(run: str | Path, output: str | Path | None = None, *, licence: str = "") -> Path:
    """Export the backbone of a finished run.

    Args:
        run: its directory.
        output: folder for the files; None: the run's directory, where ``backbone.weights=<run directory>`` finds them.
        licence: of the weights, for the card.

    Returns: the weights file.

    Raises:
        RunError: the run is not finished, or a file of it is missing or damaged.
    """
    loaded = load_run(run)
    folder = Path(output) if output is not None else loaded.path
    return export_model(
        folder, loaded.model, loaded.task, loaded.result, loaded.config, loaded.input_spec, licence=licence
    )
