"""Whole sweeps through submitit and Ray, and on SLURM where there is one."""

import getpass
import importlib.util
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from sweep_testing import Command, epochs_trained, learned, nobody_holds, told, wait_for

from headstart.runs.directory import find_runs
from headstart.runs.result import read_result

LOCAL = ("hydra/launcher=slurm", "hydra.launcher.cluster=local")
SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1")
RAY = ("hydra/launcher=ray",)
NO_REPORT = "hydra.sweeper.report=false"

no_submitit = importlib.util.find_spec("submitit") is None
no_ray = importlib.util.find_spec("ray") is None
needs_submitit = pytest.mark.skipif(no_submitit, reason="needs submitit: pip install 'headstart[slurm]'")
needs_ray = pytest.mark.skipif(no_ray, reason="needs Ray: pip install 'headstart[ray]'")
needs_slurm = pytest.mark.skipif(
    no_submitit or shutil.which("sbatch") is None, reason="needs submitit, and a machine that SLURM runs on"
)
both = pytest.mark.parametrize(
    "launcher", [pytest.param(LOCAL, marks=needs_submitit), pytest.param(RAY, marks=needs_ray)], ids=["local", "ray"]
)


@pytest.fixture
def command(tmp_path: Path, repository: Path) -> Command:
    return Command(tmp_path, repository)


def status(study: Path) -> dict[str, tuple[str, str | None]]:
    jobs = told(study).items()
    return {name.removeprefix("experiment="): (job["status"], job["kind"]) for name, job in jobs}


@pytest.mark.slow
@both
def test_each_failure_is_told_and_the_finished_is_returned(command: Command, launcher: tuple[str, ...]):
    arguments = ("-m", "experiment=good,raises,killed,nothing", "strategy=full", "trainer.max_epochs=1", *launcher)
    code, out = command(*arguments)
    assert code == 1, out
    assert status(command.study()) == {
        "good": ("done", None),
        "raises": ("failed", "error"),
        "killed": ("failed", "killed"),
        "nothing": ("failed", "config"),
    }, out
    assert "out of ideas" in told(command.study())["experiment=raises"]["error"]
    assert "error: 3 of 4 runs failed; the others are complete" in out
    assert (command.study() / "report.html").exists()
    assert [path.name for path in (command.study() / ".jobs").iterdir()] == ["nodes.json"]

    good = command.study() / told(command.study())["experiment=good"]["run"]
    before = (good / "result.json").stat()
    code, out = command("-m", "experiment=good", "strategy=full", "trainer.max_epochs=1", *launcher)
    assert code == 0, out
    assert "1 there already" in out
    assert (good / "result.json").stat() == before


@pytest.mark.slow
@both
def test_a_job_learns_what_it_learns_alone(command: Command, launcher: tuple[str, ...]):
    arguments = ("strategy=full", "trainer.max_epochs=2", "seed=3")
    code, out = command("-m", *arguments, *launcher, NO_REPORT, study="cluster")
    assert code == 0, out
    code, out = command(*arguments, study="alone")
    assert code == 0, out
    [cluster], [alone] = find_runs(command.study("cluster")), find_runs(command.study("alone"))
    assert cluster.name == alone.name
    assert learned(cluster) == learned(alone)


@pytest.mark.slow
@both
def test_distributed_jobs_and_the_next_ones(command: Command, launcher: tuple[str, ...]):
    cores = ("hydra.launcher.cpus_per_job=0.5",) if launcher == RAY else ()
    code, out = command(
        "-m",
        "trainer.devices=1,2",
        "trainer.strategy=ddp",
        "trainer=cpu",
        "strategy=full",
        "trainer.max_epochs=1",
        NO_REPORT,
        *launcher,
        *cores,
    )
    assert code == 0, out
    found = {name: read_result(command.study() / job["run"]).cost.device for name, job in told(command.study()).items()}
    assert found["trainer.devices=1"].startswith("1 x cpu")
    assert found["trainer.devices=2"].startswith("2 x cpu")


@pytest.mark.slow
@both
def test_ctrl_c_stops_the_jobs_and_the_same_command_goes_on(command: Command, launcher: tuple[str, ...]):
    arguments = ("-m", "experiment=slow", "seed=1", "trainer.max_epochs=30", "cache=off", "strategy=full", NO_REPORT)
    process = command.start(*arguments, *launcher)
    wait_for(lambda: epochs_trained(command.study()) >= 1, process, timeout_s=300)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 130, out
    assert [job["status"] for job in told(command.study()).values()] == ["interrupted"], out
    [run] = find_runs(command.study())
    assert not (run / "result.json").exists()
    wait_for(lambda: nobody_holds(run))
    code, out = command(*arguments, *launcher)
    assert code == 0, out
    attempts = json.loads((run / "attempts.json").read_text())["attempts"]
    assert [attempt["ended"] for attempt in attempts] == [False, True]


@pytest.mark.slow
@needs_submitit
def test_a_displaced_job_goes_on_from_its_last_epoch(command: Command):
    """submitit's warning before a time limit or preemption, as SLURM sends it."""
    arguments = ("experiment=slow", "strategy=full", "trainer.max_epochs=20", "cache=off")
    process = command.start("-m", *arguments, *LOCAL, NO_REPORT)
    wait_for(lambda: epochs_trained(command.study()) >= 2, process, timeout_s=300)
    [pid] = [pid for pid, line in processes() if "submitit.core._submit" in line and str(command.folder) in line]
    os.kill(pid, signal.SIGUSR2)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    [job] = told(command.study()).values()
    assert (job["status"], job["attempts"]) == ("done", 1)
    [run] = find_runs(command.study())
    attempts = json.loads((run / "attempts.json").read_text())["attempts"]
    assert [attempt["ended"] for attempt in attempts] == [False, True]
    code, out = command(*arguments, study="whole")
    assert code == 0, out
    [whole] = find_runs(command.study("whole"))
    assert learned(run) == learned(whole)


@pytest.mark.slow
@needs_ray
def test_a_search_through_ray(command: Command):
    arguments = ("-m", "hydra/sweeper=optuna", "strategy=full", "optimizer.lr=tag(log,interval(1e-4,1e-1))", *RAY)
    code, out = command(*arguments, "study.trials=2", "trainer.max_epochs=1", NO_REPORT)
    assert (code, out.count("\n")) == (1, 1)
    assert "say how many run at a time with hydra.launcher.n_jobs" in out
    code, out = command(*arguments, "study.trials=2", "trainer.max_epochs=1", NO_REPORT, "hydra.launcher.n_jobs=2")
    assert code == 0, out
    assert len(find_runs(command.study())) == 2


def test_what_is_missing_is_said_in_one_line(command: Command):
    (command.folder / "sitecustomize.py").write_text(
        "import sys\nsys.modules['submitit'] = sys.modules['ray'] = None\n"
        "import importlib.util as u\nreal = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('submitit', 'ray') else real(name, *rest)\n"
    )
    code, out = command("-m", "seed=1,2", "hydra/launcher=slurm")
    assert (code, out) == (1, "error: hydra/launcher=slurm needs submitit: pip install 'headstart[slurm]'\n")
    code, out = command("-m", "seed=1,2", "hydra/launcher=ray")
    assert (code, out) == (1, "error: hydra/launcher=ray needs Ray: pip install 'headstart[ray]'\n")
    assert not command.study().exists()


@needs_submitit
@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="there is an sbatch here")
def test_a_machine_without_slurm_says_so(command: Command):
    code, out = command("-m", "seed=1,2", "hydra/launcher=slurm")
    assert (code, out.count("\n")) == (1, 1)
    assert "there is no sbatch here; start the sweep on a login node" in out


def test_several_nodes_need_a_launcher_that_has_them(command: Command):
    code, out = command("-m", "seed=1,2", "trainer=ddp_cpu", "trainer.num_nodes=2")
    assert (code, out.count("\n")) == (1, 1)
    assert "trainer.num_nodes=2 needs a launcher with several machines: hydra/launcher=slurm" in out


@pytest.mark.slow
@needs_slurm
def test_slurm_runs_a_sweep_and_its_jobs_outlive_a_killed_one(command: Command):
    arguments = ("-m", "experiment=slow", "seed=1,2,3", "trainer.max_epochs=4", "cache=off", "strategy=full", NO_REPORT)
    process = command.start(*arguments, *SLURM)
    wait_for(lambda: epochs_trained(command.study()) >= 1, process, timeout_s=300)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    queued = in_slurms_queue()
    assert len(queued) == 3
    code, out = command(*arguments, *SLURM)
    assert code == 0, out
    assert out.count("is in the queue already") == 3 - sum("1 there already" in line for line in out.splitlines())
    for run in find_runs(command.study()):
        attempts = json.loads((run / "attempts.json").read_text())["attempts"]
        assert [attempt["ended"] for attempt in attempts] == [True]


@pytest.mark.slow
@needs_slurm
def test_a_job_that_slurm_starts_again_goes_on(command: Command):
    arguments = ("-m", "experiment=slow", "trainer.max_epochs=6", "cache=off", "strategy=full", NO_REPORT)
    process = command.start(*arguments, *SLURM)
    wait_for(lambda: epochs_trained(command.study()) >= 2, process, timeout_s=300)
    [number] = in_slurms_queue()
    subprocess.run(["scancel", "--signal=USR2", number], check=True)
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 0, out
    [run] = find_runs(command.study())
    attempts = json.loads((run / "attempts.json").read_text())["attempts"]
    assert [attempt["ended"] for attempt in attempts] == [False, True]


@pytest.mark.slow
@needs_slurm
def test_ctrl_c_takes_the_jobs_out_of_slurms_queue(command: Command):
    arguments = ("-m", "experiment=slow", "seed=range(1,5)", "trainer.max_epochs=50", "cache=off", NO_REPORT)
    process = command.start(*arguments, *SLURM)
    wait_for(lambda: epochs_trained(command.study()) >= 1, process, timeout_s=300)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 130, out
    assert {job["status"] for job in told(command.study()).values()} == {"interrupted"}
    wait_for(lambda: not in_slurms_queue())


def in_slurms_queue() -> list[str]:
    found = subprocess.run(
        ["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i"],
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.split()


def processes() -> list[tuple[int, str]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append((int(path.parent.name), path.read_bytes().replace(b"\0", b" ").decode(errors="replace")))
        except OSError:
            continue
    return found
