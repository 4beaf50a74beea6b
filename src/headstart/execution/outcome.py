"""What every run leaves behind, however its model was trained: the proof, the result, predictions, pictures."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from headstart.config import ResolvedRun
from headstart.data.datamodule import ImageDataModule
from headstart.execution.assemble import Prepared
from headstart.execution.calibrate import calibrate
from headstart.execution.summary import show_result
from headstart.export.backbone_file import export_model
from headstart.model.transfer_model import TransferModel
from headstart.plots.run import draw_run
from headstart.runs.directory import Attempt, RunDirectory
from headstart.runs.result import Result, read_metrics_csv, to_plain, write_result
from headstart.store.activations import CachedData
from headstart.system.atomic import atomic_write, write_json
from headstart.system.console import show
from headstart.system.names import override
from headstart.tasks import Task
from headstart.tasks.predictions import Predictions, ScoredModel, check_numbers
from headstart.tracking.loggers import log_outcome, measurements
from headstart.training.audit import Audit
from headstart.training.convergence import fit_record

_VERSIONS = ("torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "numpy", "pillow", "headstart")


@dataclass
class Answered:
    """A model with its answers; a :class:`headstart.tasks.predictions.ScoredModel`."""

    model: TransferModel
    task: Task
    predictions: dict[str, Predictions]


def prove(run: RunDirectory, prepared: Prepared, *, owner: bool = True) -> dict[str, Any]:
    """The audit's outcome, in ``audit.json`` with what every phase meant."""
    audit = prepared.audit.finish()
    audit["phases"] = prepared.phase_tables()
    if owner:
        write_json(run.audit_file, to_plain(audit))
    return audit


def build_result(
    resolved: ResolvedRun,
    scored: ScoredModel,
    loaders: CachedData,
    audit: dict[str, Any],
    *,
    params: dict[str, int],
    best_epoch: int | None,
    epochs: int,
    precision: str,
    other_metrics: dict[str, float] | None = None,
    details: dict[str, Any] | None = None,
) -> Result:
    """Everything about a scored run but its cost; its task takes from validation what is to be calibrated.

    Raises:
        DivergedError: what it predicts is not a number.
    """
    check_numbers(scored.predictions)
    calibration = calibrate(resolved.settings, scored)
    data = loaders.data
    metrics = {
        f"{split}/{name}": value
        for split in data.sizes
        if split in scored.predictions
        for name, value in scored.predictions[split].metrics.items()
    } | (other_metrics or {})
    return Result(
        status="done",
        fingerprint=resolved.fingerprint,
        metrics=to_plain(metrics),
        config=resolved.flat(),
        weights=_weights(scored.model),
        data=data.summary(),
        params=params,
        cache=loaders.record(),
        versions=dict(_versions()),
        details={
            "task": scored.task.name,
            "task_record": scored.task.record(),
            "monitor": scored.task.monitor,
            **_per_class(scored),
            **to_plain(calibration),
            "best_epoch": best_epoch,
            "epochs": epochs,
            **best_phase(audit["phases"], best_epoch),
            "input_spec": data.spec.as_dict() if data.spec else None,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "unmoved": audit["unmoved"],
            **(details or {}),
        },
    )


def best_phase(phases: Sequence[Mapping[str, Any]], best_epoch: int | None) -> dict[str, Any]:
    """Names of the phases and, of several, the one that the chosen epoch is of."""
    names = [phase["name"] for phase in phases]
    if best_epoch is None or len(names) < 2:
        return {"phases": names}
    best = (phase["name"] for phase in phases if phase["start_epoch"] <= best_epoch < phase["end_epoch"])
    return {"phases": names, "best_phase": next(best, None)}


def write_down(
    result: Result,
    run: RunDirectory,
    attempt: Attempt,
    module: ScoredModel,
    data: ImageDataModule,
    loggers: list[Any],
    resolved: ResolvedRun,
) -> Result:
    """Predictions, pictures, what the loggers take, the export, and last of all ``result.json`` with its cost."""
    ids = {split: np.asarray(data.records(split).ids)[found.index] for split, found in module.predictions.items()}
    for split in module.predictions:
        _write_predictions(run, split, module, data, ids[split])
    if resolved.settings.callbacks.plots:
        draw_run(run, module, data, best_epoch=result.details["best_epoch"])
    rows = read_metrics_csv(run.metrics_file) if run.metrics_file.exists() else []
    record = fit_record(rows, result.details["best_epoch"])
    result = replace(result, cost=attempt.total, details={**result.details, "fit": record})
    log_outcome(
        loggers,
        metrics=result.metrics | measurements(result, run.audit_file),
        predictions=module.predictions if module.task.one_class else {},
        ids=ids,
        classes=data.classes if module.task.one_class else (),
        plots=sorted(run.plots.glob("*.png")),
    )
    if resolved.settings.export:
        assert data.spec is not None
        path = export_model(run.path, module.model, module.task, result, resolved.config, data.spec)
        show(f"Exported: {override('backbone.weights', path.parent)}")
    write_result(run.path, result)
    show_result(result, run.path)
    return result


def count_parameters(audit: Audit) -> dict[str, int]:
    """The ``params`` section of ``result.json``; ``stored`` where a task keeps more than what learns."""
    sizes = {parameter.name: parameter.size for stage in audit.info.stages for parameter in stage.parameters}
    trainable = sum(size for name, size in sizes.items() if name in audit.ever_learning)
    found = {"total": sum(sizes.values()), "trainable": trainable}
    return found | ({"stored": trainable + audit.statistics} if audit.statistics else {})


def _per_class(scored: ScoredModel) -> dict[str, Any]:
    """Of each split but train, the scores of each class in the order of ``data.classes``, where there are classes."""
    found = {
        split: scored.task.per_class(torch.from_numpy(said.outputs), torch.from_numpy(said.targets))
        for split, said in scored.predictions.items()
    }
    return {"per_class": to_plain(found)} if any(found.values()) else {}


def _weights(model: TransferModel) -> dict[str, Any]:
    report = asdict(model.backbone.weights)
    report["classes"] = len(report["classes"])  # hundreds of names say nothing about this run
    return report


def _write_predictions(
    run: RunDirectory, split: str, module: ScoredModel, data: ImageDataModule, ids: np.ndarray
) -> None:
    predictions = module.predictions[split]
    kept: dict[str, Any] = module.task.kept(torch.from_numpy(predictions.outputs))
    with atomic_write(run.predictions_file(split), "wb") as file:
        np.savez_compressed(
            file,
            index=predictions.index,
            ids=ids,
            targets=predictions.targets,
            probabilities=predictions.probabilities,
            classes=np.asarray(data.classes),
            **{name: rows.numpy() for name, rows in kept.items()},
        )


def device_name(trainer: pl.Trainer) -> str:
    """The ``device`` of a run's cost."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{trainer.world_size} x {device.type} ({name})"


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}}
