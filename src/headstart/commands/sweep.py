"""A sweep from Python, by the same sweepers and launchers as ``python train.py -m``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.config.compose import multirun
from headstart.study.study import Study

if TYPE_CHECKING:
    from omegaconf import DictConfig


def sweep(overrides: Sequence[str], *, config_dir: str | Path | None = None) -> Study:
    """Run every combination of the values given.

    Raises:
        SweepError: some runs failed; the others are complete, and the study's folder holds them.
        ConfigError: a mistake that is in every run.
    """
    folder, _ = multirun(overrides, _job, config_dir=config_dir)
    return Study(folder)


def _job(config: "DictConfig") -> None:
    from headstart.config import resolve_run
    from headstart.execution.train import train

    train(resolve_run(config))
