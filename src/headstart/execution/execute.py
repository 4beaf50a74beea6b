"""The straight line of a run, from the data to ``result.json``."""

import logging
import platform
import time
from dataclasses import asdict, replace
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ProgressBar

from headstart.config import ResolvedRun, RunSettings
from headstart.config.check import check_strategy
from headstart.data.datamodule import ImageDataModule
from headstart.execution.assemble import build_loaders, build_module, prepare_strategy, static_folder
from headstart.execution.batches import check_batches, check_phases_ran, cut_short
from headstart.execution.summary import data_notice, show_result, views_notice
from headstart.execution.surroundings import build_surroundings
from headstart.export.backbone_file import export_model
from headstart.frozen.closed_form import ClosedFormModule, SaveSolution, solution_record, stored_numbers
from headstart.model.description import ModelInfo
from headstart.model.head_init import calibrate, initialise_head
from headstart.model.modes import apply_modes
from headstart.model.phases import Phase
from headstart.model.transfer_model import TransferModel
from headstart.plots.run import draw_run
from headstart.runs.directory import Attempt, RunDirectory
from headstart.runs.result import Result, read_metrics_csv, to_plain, write_result
from headstart.store.activations import CachedData
from headstart.strategies.contract import Strategy, Surroundings
from headstart.system.atomic import atomic_write, write_json
from headstart.system.console import show
from headstart.tasks.predictions import ScoredModel, check_numbers
from headstart.tracking.loggers import build_loggers, finish_loggers, log_outcome, measurements
from headstart.training.assemble import build_backbone, build_data, build_data_task, build_head, seed_stream
from headstart.training.audit import StageRow, audit_table, raise_violations, rows_as_dicts
from headstart.training.callbacks import CostMeter, MetricsCsv, StepSeed, build_progress
from headstart.training.checkpoints import AtomicCheckpointIO, build_checkpoints, load_weights, save_final, share_static
from headstart.training.convergence import fit_record
from headstart.training.module import TransferModule
from headstart.training.quiet import quiet_lightning
from headstart.weights.report import weights_notice

_log = logging.getLogger(__name__)

_VERSIONS = ("torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "numpy", "pillow", "headstart")


def execute(resolved: ResolvedRun, run: RunDirectory, *, resume: bool, owner: bool) -> Result:
    """Train, prove, test and write down one run; ``run`` is locked and open.

    Args:
        resolved: what to run.
        run: where.
        resume: go on from the last checkpoint.
        owner: whether this process writes; the others of a distributed run only compute.

    Raises:
        HeadstartError: the data or weights cannot be used, the training diverged, or the audit failed.
    """
    started = time.perf_counter()
    quiet_lightning()
    attempt = run.attempt() if owner else None
    settings = resolved.settings
    strategy, surroundings, model = prepare_model(resolved)
    data = surroundings.data
    module = build_module(settings, strategy, model, surroundings)
    loaders = build_loaders(settings, data, module)
    check_batches(settings.trainer, data, module)
    module.audit.start()
    if owner:
        share_static(run.checkpoints, static_folder(run.path), module.static_state())
        _announce(module, loaders)
    loggers = build_loggers(settings.logger, run_dir=run.path, resolved=resolved) if owner else []
    try:
        trainer = build_trainer(settings, run, module, loaders, loggers, attempt)
        fit(trainer, module, loaders, run, resume=resume)
        result = conclude(resolved, run, trainer, module, loaders, strategy)
        if owner:
            assert attempt is not None
            elapsed = time.perf_counter() - started
            attempt.record(ended=True, device=device_name(trainer), **_cold_seconds(elapsed, loaders, attempt))
            result = write_down(result, run, attempt, module, data, loggers, resolved)
    except BaseException:
        finish_loggers(loggers, exit_code=1)
        raise
    finish_loggers(loggers, exit_code=0)
    return result


def prepare_model(resolved: ResolvedRun) -> tuple[Strategy, Surroundings, TransferModel]:
    """The strategy, what it gets to see (data and task among it), and the model as it wants it before training."""
    settings, seed = resolved.settings, resolved.settings.seed
    strategy: Strategy = settings.strategy.build()
    check_strategy(resolved.config, strategy)
    data = build_data(settings.datamodule, seed=seed, task=settings.task)
    image_size = settings.datamodule.arguments.get("image_size")
    backbone = build_backbone(settings.backbone, resolved.weights, seed=seed, image_size=image_size)
    data.configure(backbone.input_spec)
    task = build_data_task(settings.task, settings.loss, data)
    model = TransferModel(backbone, build_head(settings.head, backbone, task, seed=seed))
    surroundings = build_surroundings(settings, strategy, backbone, task, data)
    if settings.head_init != "default":
        initialise_head(model, settings.head_init, data, task, surroundings.device)
    seed_stream(seed, "strategy")
    strategy.prepare(model, surroundings)
    if settings.head_init == "probe":
        first = prepare_strategy(settings, strategy, model).plan.phases[0]
        apply_modes(model, first, batchnorm=settings.batchnorm)
        calibrate(model, data, task, surroundings.device)
    return strategy, surroundings, model


def build_trainer(
    settings: RunSettings,
    run: RunDirectory,
    module: TransferModule,
    loaders: CachedData,
    loggers: list[Any],
    attempt: Attempt | None,
) -> pl.Trainer:
    """Lightning's trainer with this run's callbacks; its own switches pass through."""
    switches, callbacks, task = dict(settings.trainer.switches), settings.callbacks, module.task
    stopping = callbacks.early_stopping
    built: list[pl.Callback] = [
        StepSeed(settings.seed),
        CostMeter(attempt, apart=lambda: loaders.seconds, since=attempt.began if attempt else None),
        MetricsCsv(run.metrics_file),
        *_build_checkpoints(run, module, callbacks.checkpoint.every_n_epochs),
        *build_progress(callbacks.progress),
    ]
    if stopping.enabled:
        patience, delta = stopping.patience, stopping.min_delta
        built.append(EarlyStopping(task.monitor, mode=task.monitor_mode, patience=patience, min_delta=delta))
    several = settings.trainer.distributed and len(module.plan.phases) > 1
    if several and settings.trainer.strategy in ("ddp", "auto"):
        # What is frozen in the present phase takes no part in the backward pass.
        switches["strategy"] = "ddp_find_unused_parameters_true"
    if loaders.phases_differ:
        switches["reload_dataloaders_every_n_epochs"] = 1
    return pl.Trainer(
        **switches,
        default_root_dir=run.path,
        logger=loggers or False,
        callbacks=built,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_checkpointing=True,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in built),
    )


def fit(trainer: pl.Trainer, module: TransferModule, loaders: CachedData, run: RunDirectory, *, resume: bool) -> None:
    """Train through all phases, from the last checkpoint where there is one.

    Raises:
        KeyboardInterrupt: the user stopped it; the same command goes on from the last epoch's end.
    """
    checkpoint = run.last_checkpoint if resume and run.last_checkpoint.exists() else None
    seed_stream(loaders.data.seed, "training")
    try:
        trainer.fit(module, datamodule=loaders, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None


def conclude(
    resolved: ResolvedRun,
    run: RunDirectory,
    trainer: pl.Trainer,
    module: TransferModule,
    loaders: CachedData,
    strategy: Strategy,
) -> Result:
    """Prove what learned, then score the checkpoint that validation chose on validation and, once, on test.

    Raises:
        AuditError: something frozen moved, or something trainable never received a gradient.
        RunError: training ended before the strategy's last phase.
    """
    data, audit = loaders.data, module.audit.finish()
    phases = enumerate(module.plan.phases)
    audit["phases"] = [phase_table(phase, module.audit.info, module.show_phase(index)) for index, phase in phases]
    if trainer.is_global_zero:
        write_json(run.audit_file, to_plain(audit))
    check_phases_ran(trainer, module, audit, resolved.settings.trainer.switches)
    raise_violations(audit)
    epochs, cut = trainer.current_epoch, cut_short(trainer, resolved.settings.trainer.switches)
    best = load_weights(module.model, run.checkpoints) if run.best_checkpoint.exists() else None
    strategy.merge(module.model)
    chosen = module.extras.finish(module.model, lambda: _validate(trainer, module, loaders))
    if chosen and trainer.is_global_zero:
        save_final(module.model, run.checkpoints)
    _validate(trainer, module, loaders)
    if data.has_test:
        trainer.test(module, datamodule=loaders, verbose=False)
    return build_result(
        resolved,
        module,
        data,
        audit,
        other_metrics=module.other_metrics,
        params={**count_parameters(module.audit.info, module.audit.ever_learning), **stored_numbers(module)},
        cache=loaders.record(),
        best_epoch=best,
        epochs=epochs,
        precision=str(trainer.precision),
        details={
            **({"strategy": chosen} if chosen else {}),
            **({"cut_short": cut} if cut else {}),
            **solution_record(module),
        },
    )


def build_result(
    resolved: ResolvedRun,
    scored: ScoredModel,
    data: ImageDataModule,
    audit: dict[str, Any],
    *,
    params: dict[str, int],
    cache: dict[str, Any],
    best_epoch: int | None,
    epochs: int,
    precision: str,
    other_metrics: dict[str, float] | None = None,
    details: dict[str, Any] | None = None,
) -> Result:
    """Everything about a scored run but its cost.

    Raises:
        DivergedError: what it predicts is not a number.
    """
    check_numbers(scored.predictions)
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
        cache=cache,
        versions=dict(_versions()),
        details={
            "task": scored.task.name,
            "task_record": scored.task.record(),
            "monitor": scored.task.monitor,
            "best_epoch": best_epoch,
            "epochs": epochs,
            "phases": [phase["name"] for phase in audit["phases"]],
            "input_spec": data.spec.as_dict() if data.spec else None,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "unmoved": audit["unmoved"],
            **(details or {}),
        },
    )


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
        show(f"Exported: backbone.weights={path.parent}")
    write_result(run.path, result)
    show_result(result, run.path)
    return result


def _announce(module: TransferModule, loaders: CachedData) -> None:
    show(data_notice(loaders.data.summary()))
    show(weights_notice(module.model.backbone.weights))
    phases = module.plan.phases
    for index, phase in enumerate(phases):
        title = f"{phase.name}, epochs {phase.start_epoch + 1} to {phase.end_epoch}" if len(phases) > 1 else ""
        show(audit_table(module.show_phase(index), title=title))
    views, epochs = loaders.views
    if views:
        show(views_notice(views, images=loaders.data.sizes["train"], epochs=epochs))
    for notice in loaders.notices():
        show(f"not stored: {notice}")


def _cold_seconds(elapsed: float, loaders: CachedData, attempt: Attempt) -> dict[str, float]:
    """Costs as if nothing had been stored before: what was found is counted at the price of making it, once a run."""
    extracted = max(0.0, loaders.extract_seconds - attempt.earlier.extract_seconds)
    total = elapsed - loaders.seconds + extracted
    return {"total_seconds": round(total, 3), "extract_seconds": round(extracted, 3)}


def _validate(trainer: pl.Trainer, module: TransferModule, loaders: CachedData) -> float:
    """Score on validation; higher is better whatever the metric."""
    trainer.validate(module, datamodule=loaders, verbose=False)
    value = module.predictions["val"].metrics[module.task.monitor.removeprefix("val/")]
    return value if module.task.monitor_mode == "max" else -value


def phase_table(phase: Phase, info: ModelInfo, rows: list[StageRow]) -> dict[str, Any]:
    """One of the ``phases`` of ``audit.json``."""
    return {
        "name": phase.name,
        "start_epoch": phase.start_epoch,
        "end_epoch": phase.end_epoch,
        "frozen_stages": phase.frozen_stages(info),
        "stages": rows_as_dicts(rows),
    }


def _build_checkpoints(run: RunDirectory, module: TransferModule, every_n_epochs: int) -> list[Any]:
    """What keeps the model: at the best epoch and at the last, or once it is solved for."""
    if isinstance(module, ClosedFormModule):
        return [SaveSolution(run.checkpoints)]
    monitor, mode = module.task.monitor, module.task.monitor_mode
    return build_checkpoints(run.checkpoints, monitor=monitor, mode=mode, every_n_epochs=every_n_epochs)


def count_parameters(info: ModelInfo, learning: frozenset[str]) -> dict[str, int]:
    """The ``params`` section of ``result.json``."""
    sizes = {parameter.name: parameter.size for stage in info.stages for parameter in stage.parameters}
    trainable = sum(size for name, size in sizes.items() if name in learning)
    return {"total": sum(sizes.values()), "trainable": trainable}


def _weights(model: TransferModel) -> dict[str, Any]:
    report = asdict(model.backbone.weights)
    report["classes"] = len(report["classes"])  # hundreds of names say nothing about this run
    return report


def _write_predictions(
    run: RunDirectory, split: str, module: ScoredModel, data: ImageDataModule, ids: np.ndarray
) -> None:
    predictions = module.predictions[split]
    with atomic_write(run.predictions_file(split), "wb") as file:
        np.savez_compressed(
            file,
            index=predictions.index,
            ids=ids,
            targets=predictions.targets,
            probabilities=predictions.probabilities,
            classes=np.asarray(data.classes),
        )


def device_name(trainer: pl.Trainer) -> str:
    """The ``device`` of a run's cost."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{trainer.world_size} x {device.type} ({name})"


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}}
