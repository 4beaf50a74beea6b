"""Sweeps as a user starts them, in a folder of their own, and what they left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart.runs.result import read_metrics_csv, read_result

TINY = (
    "backbone=small_cnn",
    "backbone.weights=none",
    "datamodule.shots=2",
    "datamodule.image_size=32",
    "datamodule.num_workers=0",
    "datamodule.test_fraction=0.05",
    "datamodule.val_fraction=0.05",
    "callbacks.plots=false",
    "trainer.precision=32-true",
)

#: Heads that go wrong, as a user's own module.
BROKEN = """
import glob, os, signal, time
from headstart.heads import Linear

class Raises(Linear):
    def __init__(self, *args, **kwargs):
        raise RuntimeError("out of ideas")

class Killed(Linear):
    def __init__(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

class Slow(Linear):
    def forward(self, features):
        time.sleep(0.2)
        return super().forward(features)

class Hangs(Linear):
    # In the second epoch, until there is a mark.
    def forward(self, features):
        if self.training and glob.glob("outputs/*/*/checkpoints/last.ckpt") and not os.path.exists(os.environ["MARK"]):
            time.sleep(600)
        return super().forward(features)

class OnceKilled(Linear):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        try:
            open(os.environ["MARK"], "x").close()
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
"""


class Command:
    """Starts ``train.py`` in a folder of its own, with the user's own heads and experiments at hand."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder = folder
        self.script = repository / "train.py"
        self.conf = folder / "conf"
        (folder / "broken.py").write_text(BROKEN)
        for name, head in {
            "good": None,
            "raises": "Raises",
            "killed": "Killed",
            "slow": "Slow",
            "hangs": "Hangs",
            "once_killed": "OnceKilled",
        }.items():
            text = "" if head is None else f"head:\n  _target_: broken.{head}\n"
            self.experiment(name, text)
        self.experiment("diverges", "optimizer:\n  lr: 1.0e+30\n")

    def experiment(self, name: str, text: str) -> None:
        path = self.conf / "experiment" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\n{text}")

    def start(self, *arguments: str, study: str = "study") -> subprocess.Popen[str]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")]),
            "COLUMNS": "200",
            "MARK": str(self.folder / "mark"),
            "LOCAL_RANK": "0",  # as an outer launcher may have left it
            "PL_GLOBAL_SEED": "7",
        }
        return subprocess.Popen(
            [sys.executable, str(self.script), "--config-dir", str(self.conf), f"name={study}", *TINY, *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, study: str = "study") -> tuple[int, str]:
        process = self.start(*arguments, study=study)
        try:
            out, _ = process.communicate(timeout=400)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, out

    def study(self, name: str = "study") -> Path:
        return self.folder / "outputs" / name


def told(study: Path) -> dict[str, dict[str, Any]]:
    """What ``sweep.json`` says of each job, by its overrides."""
    jobs = json.loads((study / "sweep.json").read_text())["jobs"]
    return {job["overrides"]: job for job in jobs}


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str] | None = None, timeout_s: float = 120) -> None:
    limit = time.monotonic() + timeout_s
    while not reached():
        if process is not None and process.poll() is not None:
            pytest.fail(f"the sweep ended early:\n{process.communicate()[0]}")
        assert time.monotonic() < limit, "the moment never came"
        time.sleep(0.02)


def epochs_trained(study: Path) -> int:
    return sum(len(read_metrics_csv(path)) for path in study.glob("*/metrics.csv"))


def nobody_holds(run: Path) -> bool:
    from headstart.runs.directory import RunDirectory

    return not RunDirectory(run, "").in_use


def learned(run: Path) -> tuple[Any, ...]:
    """Everything that a run computed: metrics, rows of each epoch without their times, weights, predictions."""
    import numpy as np
    import torch

    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics_csv(run / "metrics.csv")]
    digests = []
    for path in sorted((run / "checkpoints").glob("*.ckpt")):
        state = torch.load(path, weights_only=True)["state_dict"]
        digests.append((path.name, {name: value.numpy().tobytes() for name, value in state.items()}))
    with np.load(run / "predictions_val.npz") as stored:
        probabilities = stored["probabilities"].tobytes()
    result = read_result(run)
    return result.metrics, result.fingerprint, rows, digests, probabilities
