"""Ctrl-C and SIGTERM at any moment: one line, the right exit code, within seconds."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.system.locks import FileLock

LIMIT_S = 60.0  # of a busy machine too

#: As a user who presses Ctrl-C when a module is looked for.
IMPATIENT = """
import os, signal, sys

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ.get("INTERRUPT_AT"):
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Impatient())
"""

TINY = (
    "backbone=small_cnn",
    "backbone.weights=none",
    "datamodule.shots=2",
    "datamodule.image_size=32",
    "datamodule.num_workers=0",
    "callbacks.plots=false",
    "trainer=cpu",
    "trainer.precision=32-true",
)

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tmp_path: Path, repository: Path):
    """Starts ``train.py`` in a folder of its own; what still runs is killed in the end."""
    started: list[subprocess.Popen] = []

    def begin(*overrides: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(repository / "train.py"), *TINY, "paths.cache_dir=cache", *overrides],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        process.communicate()


def until(process: subprocess.Popen, said: str) -> str:
    """What the process has printed when it says something."""
    out = ""
    for line in process.stdout:
        out += line
        if said in line:
            return out
    pytest.fail(f"{said!r} was never said:\n{out}")


def terminated(process: subprocess.Popen) -> str:
    """What the process still prints, told to go."""
    process.terminate()
    before = time.monotonic()
    out, _ = process.communicate(timeout=120)
    assert time.monotonic() - before < LIMIT_S, out
    assert process.returncode == 130, out
    return out


def other_process(process: subprocess.Popen) -> int:
    """The one that the first process of a distributed run has started."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    [other] = map(int, children.stdout.split())
    return other


@pytest.mark.parametrize("module", ["headstart.commands.cli", "hydra", "omegaconf", "headstart.config.resolve"])
@pytest.mark.parametrize("entry", ["train.py", "-m headstart train", "headstart train", "scripts/report.py outputs"])
def test_ctrl_c_in_the_first_seconds_is_one_line(entry: str, module: str, tmp_path: Path, repository: Path):
    if entry.startswith("scripts") and module != "headstart.commands.cli":
        module = "headstart.commands.report"
    (tmp_path / "sitecustomize.py").write_text(IMPATIENT)
    first, *rest = entry.split()
    if first == "headstart":
        script = Path(sys.executable).with_name("headstart")
        if not script.exists():
            pytest.skip("headstart is not installed beside this Python")
        command = [sys.executable, str(script), *rest]
    else:
        command = [sys.executable, first if first == "-m" else str(repository / first), *rest]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "INTERRUPT_AT": module}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path)
    assert done.returncode == 130, done.stderr
    assert len(done.stderr.split("\n")) <= 3
    assert done.stderr.strip().startswith("interrupted")


@pytest.mark.slow
def test_sigterm_ends_the_wait_for_another_process(start: Start, tmp_path: Path):
    """For a run that another one trains, and for rows that another one stores."""
    freeze = ("strategy=freeze", "trainer.max_epochs=1")
    first = start(*freeze)
    out, _ = first.communicate(timeout=300)
    assert first.returncode == 0, out
    [done] = tmp_path.glob("outputs/*/*/result.json")
    key = json.loads(done.read_text())["cache"]["key"]

    run = FileLock(done.parent / ".lock")
    assert run.acquire(wait=False)
    waits = start(*freeze, "rerun=all")
    until(waits, "Waiting for")
    assert "interrupted" in terminated(waits)
    run.release()

    shutil.rmtree(tmp_path / "cache" / "activations" / key)
    rows = FileLock(tmp_path / "cache" / "activations" / ".locks" / f"{key}.build")
    assert rows.acquire(wait=False)
    waits = start(*freeze, "optimizer.lr=0.02")
    until(waits, "waiting for another process that makes the stored activations")
    assert "the same command goes on" in terminated(waits)
    rows.release()
    after, _ = (again := start(*freeze, "optimizer.lr=0.02")).communicate(timeout=300)
    assert again.returncode == 0, after


@pytest.mark.slow
def test_sigterm_ends_a_rank_that_waits_for_one_that_does_not_come(start: Start, tmp_path: Path):
    """It waits in a library, where Python hears of no signal."""
    process = start("strategy=full", "trainer=ddp_cpu", "trainer.max_epochs=100000")
    until(process, "Epoch ")
    other = other_process(process)
    os.kill(other, signal.SIGSTOP)
    time.sleep(2)
    process.terminate()
    began = time.monotonic()
    process.wait(timeout=120)
    assert time.monotonic() - began < LIMIT_S
    assert process.returncode == 130
    os.kill(other, signal.SIGCONT)
    process.communicate(timeout=LIMIT_S)  # the pipe closes when the other has gone too


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_costs_one_line_and_what_came_after_the_last_checkpoint(
    rank: int, start: Start, tmp_path: Path
):
    choices = ("strategy=full", "trainer=ddp_cpu", "trainer.max_epochs=8")
    whole, _ = start(*choices, "name=whole").communicate(timeout=300)
    while True:
        process = start(*choices, "name=struck")
        out = until(process, "Epoch 2/8")
        os.kill(process.pid, signal.SIGSTOP)
        [rows] = tmp_path.glob("outputs/struck/*/metrics.csv")
        if rows.read_text().count("\n") < 8:
            break
        os.killpg(process.pid, signal.SIGKILL)  # it was stopped too late; once more
        process.communicate()
        shutil.rmtree(tmp_path / "outputs" / "struck")
    os.kill(other_process(process) if rank else process.pid, signal.SIGKILL)
    os.kill(process.pid, signal.SIGCONT)
    out += process.communicate(timeout=2 * LIMIT_S)[0]  # the pipe closes when both have gone
    assert "Traceback" not in out
    [line] = [line for line in out.splitlines() if "error: " in line]
    who, how = ("", "1 of this run was killed (SIGKILL") if rank else ("[rank 1] ", "0 of this run has ended")
    assert line.startswith(f"{who}error: process {how}"), line
    assert line.endswith("; the same command goes on from the last checkpoint")
    assert process.returncode == (1 if rank else -signal.SIGKILL)

    again, _ = start(*choices, "name=struck").communicate(timeout=300)
    assert "Epoch 1/8" not in again
    found = [
        json.loads(next(tmp_path.glob(f"outputs/{name}/*/result.json")).read_text()) for name in ("whole", "struck")
    ]
    assert found[0]["metrics"] == found[1]["metrics"], whole


@pytest.mark.slow
def test_a_process_that_never_comes_is_told(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sitecustomize.py").write_text("import os\nif os.environ.get('LOCAL_RANK') == '1': os._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    process = start("strategy=full", "trainer=ddp_cpu", "trainer.max_epochs=1")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in out
    [line] = [line for line in out.splitlines() if "error: " in line]
    assert line.startswith("error: process 1 of this run ended with exit code 3; what it said stands above; the same")


@pytest.mark.slow
def test_sigterm_ends_a_sweep_and_its_jobs(start: Start, tmp_path: Path):
    process = start("-m", "seed=1,2", "strategy=full", "trainer.max_epochs=100000", "hydra.launcher.n_jobs=2")
    while len(list(tmp_path.glob("outputs/*/*/metrics.csv"))) < 2:
        assert process.poll() is None
        time.sleep(0.2)
    assert "interrupted" in terminated(process)
    told = json.loads(next(tmp_path.glob("outputs/*/sweep.json")).read_text())["jobs"]
    assert [job["status"] for job in told] == ["interrupted"] * 2
