"""The straight line of a run, from the data to ``result.json``."""

import logging
import platform
import time
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from headstart import console
from headstart.assemble import (
    build_backbone,
    build_data,
    build_model,
    build_module,
    build_task,
    instantiate,
    seed_stream,
)
from headstart.atomic import atomic_write, write_json
from headstart.audit import raise_violations, rows_as_dicts, stage_rows
from headstart.callbacks import CostMeter, MetricsCsv, StepSeed, build_progress
from headstart.checkpoints import AtomicCheckpointIO, build_checkpoints, load_weights, share_static
from headstart.config import ResolvedRun
from headstart.data.datamodule import ImageDataModule
from headstart.loggers import build_loggers, finish_loggers
from headstart.module import TransferModule
from headstart.results import Result, write_result
from headstart.run import Attempt, RunDirectory
from headstart.strategies.contract import Strategy

_log = logging.getLogger(__name__)

_VERSIONS = ("torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "numpy", "pillow", "headstart")


def execute(resolved: ResolvedRun, run: RunDirectory, *, resume: bool) -> Result:
    """Train, prove, test and write down one run; ``run`` is locked and open.

    Raises:
        HeadstartError: the data or weights cannot be used, the training diverged, or the audit failed.
    """
    started = time.perf_counter()
    config = resolved.config
    strategy: Strategy = instantiate(config["strategy"])
    data = build_data(config)
    backbone = build_backbone(config, resolved.weights)
    data.configure(backbone.input_spec)
    task = build_task_for(config, data)
    model = build_model(config, backbone, task)
    strategy.prepare(model, task, data)
    module = build_module(config, strategy, model, task)
    module.audit.start()
    share_static(run.checkpoints, static_folder(run), module.static_state())
    attempt = run.attempt()
    loggers = build_loggers(config["logger"], run_dir=run.path, resolved=resolved)
    try:
        trainer = build_trainer(config, run, module, loggers, attempt)
        fit(trainer, module, data, run, resume=resume)
        result = conclude(resolved, run, trainer, module, data, strategy, attempt, started)
    except BaseException:
        finish_loggers(loggers, exit_code=1)
        raise
    finish_loggers(loggers, exit_code=0)
    return result


def build_trainer(
    config: dict[str, Any], run: RunDirectory, module: TransferModule, loggers: list[Any], attempt: Attempt
) -> pl.Trainer:
    """Lightning's trainer with this run's callbacks; its own switches pass through."""
    choice = {key: value for key, value in config["trainer"].items() if key not in ("channels_last", "compile")}
    callbacks = config["callbacks"]
    task = module.task
    built: list[pl.Callback] = [
        StepSeed(config["seed"]),
        CostMeter(attempt),
        MetricsCsv(run.metrics_file),
        *build_checkpoints(
            run.checkpoints,
            monitor=task.monitor,
            mode=task.monitor_mode,
            every_n_epochs=callbacks["checkpoint"]["every_n_epochs"],
        ),
        *build_progress(callbacks["progress"]),
    ]
    stopping = callbacks["early_stopping"]
    if stopping["enabled"]:
        built.append(
            EarlyStopping(
                task.monitor, mode=task.monitor_mode, patience=stopping["patience"], min_delta=stopping["min_delta"]
            )
        )
    choice["strategy"] = _distribution(choice, phases=len(module.plan.phases))
    return pl.Trainer(
        **choice,
        default_root_dir=run.path,
        logger=loggers or False,
        callbacks=built,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in built),
    )


def fit(trainer: pl.Trainer, module: TransferModule, data: ImageDataModule, run: RunDirectory, *, resume: bool) -> None:
    """Train through all phases, from the last checkpoint where there is one.

    Raises:
        KeyboardInterrupt: the user stopped it; the same command goes on from the last epoch's end.
    """
    checkpoint = run.last_checkpoint if resume and run.last_checkpoint.exists() else None
    seed_stream(data.seed, "training")
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None


def conclude(
    resolved: ResolvedRun,
    run: RunDirectory,
    trainer: pl.Trainer,
    module: TransferModule,
    data: ImageDataModule,
    strategy: Strategy,
    attempt: Attempt,
) -> Result:
    """Prove what learned, score the chosen checkpoint on validation and once on test, and write everything down.

    Raises:
        AuditError: something frozen moved, or something trainable never received a gradient.
    """
    audit = module.audit.finish()
    audit["phases"] = [_phase_table(module, index) for index in range(len(module.plan.phases))]
    if trainer.is_global_zero:
        write_json(run.audit_file, to_plain(audit))
    raise_violations(audit)
    best_epoch = None
    if run.best_checkpoint.exists():
        best_epoch = load_weights(module.model, run.checkpoints)
    chosen = strategy.finish(module.model, lambda: _score(trainer, module, data))
    splits = ["val", *(["test"] if data.has_test else [])]
    trainer.validate(module, dataloaders=data.val_dataloader(), verbose=False)
    if data.has_test:
        trainer.test(module, dataloaders=data.test_dataloader(), verbose=False)
    metrics = {
        f"{split}/{name}": value for split in splits for name, value in module.predictions[split].metrics.items()
    }
    result = Result(
        status="done",
        fingerprint=resolved.fingerprint,
        metrics=metrics,
        config=flat_config(resolved),
        weights=asdict(module.model.backbone.weights),
        data=data.summary(),
        params=_parameters(module),
        cost=attempt.total,
        cache={"used": False, "key": None, "hit": False, "reason": "cache=off"},
        versions=_versions(),
        details={
            "best_epoch": best_epoch,
            "epochs": trainer.current_epoch,
            "input_spec": data.spec.as_dict() if data.spec else None,
            "monitor": module.task.monitor,
            "task": module.task.name,
            "precision": str(trainer.precision),
            "threads": torch.get_num_threads(),
            "strategy": chosen,
        },
    )
    if trainer.is_global_zero:
        for split in splits:
            _write_predictions(run, split, module, data)
    return result


def _score(trainer: pl.Trainer, module: TransferModule, data: ImageDataModule) -> float:
    trainer.validate(module, dataloaders=data.val_dataloader(), verbose=False)
    value = module.predictions["val"].metrics[module.task.monitor.removeprefix("val/")]
    return value if module.task.monitor_mode == "max" else -value


def _phase_table(module: TransferModule, index: int) -> dict[str, Any]:
    phase = module.plan.phases[index]
    rows = stage_rows(module.model, module.audit.info, module.plan, index)
    return {
        "name": phase.name,
        "start_epoch": phase.start_epoch,
        "end_epoch": phase.end_epoch,
        "frozen_stages": phase.frozen_stages(module.audit.info),
        "stages": rows_as_dicts(rows),
    }


def _parameters(module: TransferModule) -> dict[str, int]:
    sizes = {parameter.name: parameter.size for stage in module.audit.info.stages for parameter in stage.parameters}
    trainable = sum(size for name, size in sizes.items() if name in module.audit.ever_learning)
    return {"total": sum(sizes.values()), "trainable": trainable}


def _write_predictions(run: RunDirectory, split: str, module: TransferModule, data: ImageDataModule) -> None:
    predictions = module.predictions[split]
    ids = np.asarray(data.records(split).ids)[predictions.index]
    with atomic_write(run.predictions_file(split), "wb") as file:
        np.savez_compressed(
            file,
            index=predictions.index,
            ids=ids,
            targets=predictions.targets,
            probabilities=predictions.probabilities,
            classes=np.asarray(data.classes),
        )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}}
