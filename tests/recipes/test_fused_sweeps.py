"""Whole sweeps with ``hydra/launcher=fused``: together what can be, alone what cannot, everything told and kept."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.runs.directory import find_runs
from headstart.runs.result import read_result

# The highest rate diverges.
AXES = ("optimizer=sgd", "optimizer.lr=0.01,0.1,1e38", "seed=1,2")
FUSED = ("-m", "hydra/launcher=fused", "name=study")


def study(folder: Path, name: str = "study") -> Path:
    return folder / "outputs" / name


def told(folder: Path) -> dict[str, dict]:
    jobs = json.loads((study(folder) / "sweep.json").read_text())["jobs"]
    return {job["overrides"]: job for job in jobs}


def test_a_sweep_of_heads(call: Callable, tiny: tuple[str, ...], tmp_path: Path):
    done = call(*FUSED, *tiny, *AXES, "hydra.sweeper.report=false")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 of 6 runs failed; the others are complete" in done.stderr
    assert [job["kind"] for job in told(tmp_path).values()] == [None] * 4 + ["diverged"] * 2
    results = [read_result(run) for run in find_runs(study(tmp_path))]
    finished = [result for result in results if result.status == "done"]
    assert len(finished) == 4
    assert {result.details["fused"]["runs"] for result in finished} == {6}
    assert not (study(tmp_path) / ".jobs").exists()


@pytest.mark.slow
def test_the_same_command_again_returns_what_is_there_and_reports(
    call: Callable, tiny: tuple[str, ...], tmp_path: Path
):
    call(*FUSED, *tiny, *AXES, "hydra.sweeper.report=false")
    runs = find_runs(study(tmp_path))
    stamps = {run: (run / "result.json").stat().st_mtime_ns for run in runs}
    again = call(*FUSED, *tiny, *AXES)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "6 runs: 4 there already, 2 to train" in again.stdout
    for run in runs:
        kept = (run / "result.json").stat().st_mtime_ns == stamps[run]
        assert kept == (read_result(run).status == "done"), "finished runs are returned, failed ones run again"
    assert (study(tmp_path) / "report.html").exists()


@pytest.mark.slow
def test_what_cannot_be_together_runs_alone_and_says_why(call: Callable, tiny: tuple[str, ...], tmp_path: Path):
    axes = ("strategy=freeze,partial", "seed=1,2", "hydra.sweeper.report=false")
    done = call(*FUSED, *tiny, *axes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs train alone: strategy=partial is not freeze: more than a head learns" in done.stdout
    results = {run.name: read_result(run) for run in find_runs(study(tmp_path))}
    assert len(results) == 4
    for name, result in results.items():
        assert result.status == "done"
        assert ("fused" in result.details) == ("freeze" in name)


@pytest.mark.slow
def test_many_jobs_are_what_single_commands_give(call: Callable, tiny: tuple[str, ...], tmp_path: Path):
    axes = ("optimizer.lr=1e-3,1e-2", "datamodule.shots=4,8", "scheduler=cosine,step", "head=linear,mlp", "seed=1,2")
    small = ("head.dropout=0.2", "hydra.sweeper.report=false")
    done = call(*FUSED, *tiny, *axes, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = find_runs(study(tmp_path))
    assert len(runs) == 32
    for run in runs[::11]:
        result = read_result(run)
        assert result.details["fused"]["runs"] == 32
        overrides = [text for text in result.config["overrides"] if not text.startswith("name=")]
        alone = call(*overrides, "name=alone", "paths.cache_dir=cold")
        assert alone.returncode == 0, alone.stdout + alone.stderr
        other = study(tmp_path, "alone") / run.name
        assert read_result(other).metrics == pytest.approx(result.metrics, abs=1e-3, nan_ok=True)
        for split in ("val", "test"):
            first, second = (np.load(path / f"predictions_{split}.npz") for path in (run, other))
            assert np.allclose(first["probabilities"], second["probabilities"], atol=1e-3)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 280
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_an_interrupted_sweep_keeps_what_was_finished(
    how: signal.Signals, start: Callable, call: Callable, tiny: tuple[str, ...], tmp_path: Path
):
    # The first jobs end at once, the others take their time.
    few = [item for item in tiny if "max_epochs" not in item]
    arguments = (*FUSED, *few, "trainer.max_epochs=1,150", "head=linear,mlp", "hydra.sweeper.report=false")
    process = start(*arguments, "datamodule.steps_per_epoch=20")
    wait_until(lambda: len(list(study(tmp_path).glob("*/result.json"))) == 2, process)
    os.kill(process.pid, how)
    out, err = process.communicate(timeout=120)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), out + err
    finished = {path: path.stat().st_mtime_ns for path in study(tmp_path).glob("*/result.json")}
    unfinished = [run for run in find_runs(study(tmp_path)) if run / "result.json" not in finished]
    assert len(unfinished) == 2
    assert not any((run / "checkpoints" / "last.ckpt").exists() for run in unfinished), "nothing to go on with"
    done = call(*arguments, "datamodule.steps_per_epoch=20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 there already, 2 to train" in done.stdout
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items())
    assert all(read_result(run).status == "done" for run in unfinished)
