"""Whole commands on tiny settings: in this process where it makes no difference, as a command where it does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from headstart.runs.directory import RunDirectory, find_runs
from headstart.runs.result import Result

#: ResNet-18 at 32 pixels: an epoch on a hundred images takes about a second.
TINY = (
    "backbone=resnet18",
    "backbone.weights=bundled",
    "datamodule.image_size=32",
    "datamodule.num_workers=0",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=2",
    "callbacks.progress=none",
    "callbacks.plots=false",
)

#: Eight images a class to train on, 90 each to validate and test.
DIGITS = (
    "datamodule=digits",
    "datamodule.shots=8",
    "datamodule.val_fraction=0.05",
    "datamodule.test_fraction=0.05",
)


class Trained(NamedTuple):
    """A run and its result."""

    run: RunDirectory
    result: Result


@pytest.fixture
def tiny() -> tuple[str, ...]:
    """Overrides of a tiny run on the embedded digits."""
    return (*TINY, *DIGITS)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Trained]:
    """Trains in this process, on digits unless ``root`` is an image folder: ``train("strategy=full", output="a")``."""

    def run(*overrides: str, output: str = "outputs", root: Path | None = None) -> Trained:
        from headstart.config import compose, resolve_run
        from headstart.execution.train import train as train_one

        data = DIGITS if root is None else ("datamodule=folder", f"datamodule.root={root}")
        before = set(find_runs(tmp_path / output))
        chosen = [*TINY, *data, *overrides, f"paths.output_dir={tmp_path / output}"]
        result = train_one(resolve_run(compose(chosen))).result
        after = find_runs(tmp_path / output)
        made = [path for path in after if path not in before] or [
            path for path in after if RunDirectory(path, "").result().fingerprint == result.fingerprint
        ]
        assert len(made) == 1
        return Trained(RunDirectory(made[0], result.fingerprint), result)

    return run


@pytest.fixture
def start(repository: Path, tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Starts ``python train.py`` with overrides in an empty folder; output goes to the process's pipes.

    ``first`` is code that the process runs before, such as what holds it at the place where it is to be killed.
    """

    def command(*overrides: str, first: str = "") -> subprocess.Popen:
        script = str(repository / "train.py")
        held = ["-c", f"{first}\nimport runpy\nrunpy.run_path({script!r}, run_name='__main__')"]
        return subprocess.Popen(
            [sys.executable, *(held if first else [script]), *overrides],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return command


@pytest.fixture
def call(start: Callable[..., subprocess.Popen]) -> Callable[..., subprocess.CompletedProcess]:
    """Runs ``python train.py`` to its end."""

    def command(*overrides: str) -> subprocess.CompletedProcess:
        process = start(*overrides)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return command
