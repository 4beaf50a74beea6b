"""Experiment loggers beside ``metrics.csv``: TensorBoard, Weights & Biases, MLflow; several at once.

None of them may change, delay or fail a run for want of a network: Weights & Biases goes offline by itself and
says so, MLflow writes to a local store. Each run has a logger of its own that is closed in any case, so that the
jobs of a sweep never write into each other's.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from headstart.config import ResolvedRun
from headstart.errors import ConfigError
from headstart.runs.result import Result
from headstart.system.console import show
from headstart.system.extras import require_extra
from headstart.tasks.predictions import Predictions
from headstart.tracking.wandb_run import flat_choices, stable_id, start_wandb, wandb_outcome

_log = logging.getLogger(__name__)

Options = Mapping[str, Any]

_MLFLOW_TAG = "headstart.id"


def build_loggers(choice: Mapping[str, Options | None], *, run_dir: Path, resolved: ResolvedRun) -> list[Logger]:
    """The loggers of one run, started, with the run's choices logged. Close them with :func:`finish_loggers`.

    Args:
        choice: the ``logger`` group: name to options. ``csv`` makes no logger: ``metrics.csv`` is always written.
        run_dir: of the run; event files and offline runs go below it.
        resolved: study, key, fingerprint and configuration of the run.

    Raises:
        ConfigError: an unknown name, or a package that is not installed.
    """
    builders = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
    if unknown := sorted(set(choice) - set(builders) - {"csv"}):
        raise ConfigError(f"logger={unknown[0]} is unknown; choose from csv, {', '.join(builders)}")
    built: list[Logger] = []
    try:
        for name, builder in builders.items():
            if name in choice:
                built += builder(choice[name] or {}, Path(run_dir), resolved)
    except BaseException:
        finish_loggers(built, exit_code=1)
        raise
    return built


def finish_loggers(loggers: Iterable[Logger], *, exit_code: int = 0) -> None:
    """Close every logger, whatever happens to the others; for ``finally``.

    Args:
        loggers: from :func:`build_loggers`.
        exit_code: 0 for a finished run; anything else marks it as failed.
    """
    for logger in loggers:
        try:
            if not isinstance(logger, WandbLogger):
                logger.finalize("success" if exit_code == 0 else "failed")
            else:
                logger.experiment.finish(exit_code=exit_code)
        except Exception as error:  # a result must not be lost to a logger
            _log.debug("closing a logger failed", exc_info=True)
            show(f"{type(logger).__name__} could not be closed: {error}")


def log_outcome(
    loggers: Iterable[Logger],
    *,
    metrics: Mapping[str, float | None],
    predictions: Mapping[str, Predictions] | None = None,
    ids: Mapping[str, Sequence[str]] | None = None,
    classes: Sequence[str] = (),
    plots: Sequence[Path] = (),
) -> None:
    """Give every logger the run's final metrics, its predictions and its pictures.

    Args:
        loggers: from :func:`build_loggers`.
        metrics: flat names to values, as in ``result.json``; they become the run's summary.
        predictions: split to predictions, for a confusion matrix and a table of predictions (wandb).
        ids: split to the samples' names, in the order of its predictions.
        classes: names in index order; empty for tasks without classes.
        plots: PNG files.
    """
    known = {name: float(value) for name, value in metrics.items() if value is not None}
    for logger in loggers:
        try:
            if isinstance(logger, WandbLogger):
                wandb_outcome(logger.experiment, known, predictions or {}, ids or {}, classes, plots)
            elif isinstance(logger, TensorBoardLogger):
                _tensorboard_outcome(logger, known, plots)
            elif isinstance(logger, MLFlowLogger):
                _mlflow_outcome(logger, known, plots)
        except Exception as error:  # a result must not be lost to a logger
            _log.debug("logging the outcome failed", exc_info=True)
            show(f"{type(logger).__name__} did not take the outcome: {error}")


def measurements(result: Result, audit_file: Path) -> dict[str, float | None]:
    """What a run cost, how much of it learned, and how far each stage moved, by flat names beside the metrics.

    Args:
        result: with its cost.
        audit_file: of the run.
    """
    values: dict[str, float | None] = {f"params/{name}": count for name, count in result.params.items()}
    values |= {f"cost/{name}": value for name, value in asdict(result.cost).items() if name != "device"}
    if audit_file.exists():
        for stage in json.loads(audit_file.read_text(encoding="utf-8")).get("stages", []):
            values[f"drift/{stage['name']}"] = stage.get("drift_relative")
    return values


def _tensorboard(options: Options, run_dir: Path, resolved: ResolvedRun) -> list[Logger]:
    require_extra("logger=tensorboard", "tensorboard")
    logger = TensorBoardLogger(run_dir, name="tensorboard", version="", default_hp_metric=False, **options)
    logger.log_hyperparams(_printable(flat_choices(resolved)))
    return [logger]


def _tensorboard_outcome(logger: TensorBoardLogger, metrics: Mapping[str, float], plots: Sequence[Path]) -> None:
    from PIL import Image

    writer = logger.experiment
    writer.add_text("outcome", "\n".join(f"    {name}: {value:.4f}" for name, value in metrics.items()))
    for name, value in metrics.items():
        writer.add_scalar(f"outcome/{name}", value)
    for path in plots:
        with Image.open(path) as image:
            writer.add_image(f"plots/{path.stem}", np.asarray(image.convert("RGB")), dataformats="HWC")


def _wandb(options: Options, run_dir: Path, resolved: ResolvedRun) -> list[Logger]:
    run = start_wandb(options, run_dir, resolved)
    if run is None:  # disabled
        return []
    log_model: Literal["all"] | bool = options.get("log_model") or False
    if log_model and run.settings.mode != "online":
        show("wandb: logger.wandb.log_model uploads nothing while offline; the checkpoint stays in the run directory.")
        log_model = False
    return [WandbLogger(experiment=run, save_dir=str(run_dir), id=stable_id(resolved), log_model=log_model)]


def _mlflow(options: Options, run_dir: Path, resolved: ResolvedRun) -> list[Logger]:
    require_extra("logger=mlflow", "mlflow")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = options.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    artifacts = None
    if not uri:
        store = Path(resolved.output_dir).absolute()
        store.mkdir(parents=True, exist_ok=True)
        uri, artifacts = f"sqlite:///{store.as_posix()}/mlflow.db", (store / "mlflow-artifacts").as_uri()
    experiment, identity = options.get("experiment_name") or resolved.study, stable_id(resolved)
    earlier = _mlflow_run(uri, experiment, identity)
    logger = MLFlowLogger(
        experiment_name=experiment,
        run_name=resolved.key,
        tracking_uri=uri,
        artifact_location=artifacts,
        tags={"strategy": resolved.choices.get("strategy", ""), _MLFLOW_TAG: identity},
        run_id=earlier,
    )
    if earlier is None:  # a parameter of an MLflow run cannot be changed
        logger.log_hyperparams(_printable(flat_choices(resolved)))
    return [logger]


def _mlflow_run(uri: str, experiment: str, identity: str) -> str | None:
    """The record of an earlier attempt at the same run, to go on in."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = client.search_runs([found.experiment_id], f"tags.`{_MLFLOW_TAG}` = '{identity}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _mlflow_outcome(logger: MLFlowLogger, metrics: Mapping[str, float], plots: Sequence[Path]) -> None:
    # By the logger, which leaves out of names what MLflow refuses, such as the brackets of a quantity's unit.
    logger.log_metrics({f"outcome/{name}": value for name, value in metrics.items()})
    for path in plots:
        logger.experiment.log_artifact(logger.run_id, str(path), "plots")


def _printable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only numbers and text: what TensorBoard and MLflow show as they are."""
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in values.items()}
