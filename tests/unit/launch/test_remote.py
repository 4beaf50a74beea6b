"""Jobs on a cluster: queued once, found again, stopped, explained; and what its machines do with a job."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from launch_testing import finishes

from headstart.errors import ConfigError
from headstart.launch.node import Command, travelling
from headstart.launch.pool import OUTPUT_FOLDER, PoolSettings, interruptible, run_jobs
from headstart.launch.remote import Ended, Engine, RemotePool, node_hardware
from headstart.runs.result import read_result
from headstart.system.hardware import ASSUMED_VARIABLE, Hardware, assumed, detect, hardware_from, hardware_text

PYTHON = sys.executable
#: Of a script, a wait that hears each signal, also one that comes just before it waits.
WAIT = "while True: time.sleep(0.05)"
MACHINE = Hardware(cuda=((8, 0),), cores=4)


class ScriptedEngine(Engine):
    """A cluster whose jobs end as a test says; one without a behaviour waits in the queue."""

    poll_s = 0.0

    def __init__(self, outlives=False):
        self.outlives = outlives
        self.behaviour = {}
        self.submitted, self.cancelled, self.forgotten, self.queue = [], [], [], {}
        self.left, self.probes = {}, 0

    @property
    def resources(self):
        return {"gpus": 1}

    @property
    def variables(self):
        return {"FROM_ENGINE": "1"}

    def probe(self, folder):
        self.probes += 1
        return MACHINE

    def attach(self, job, note):
        return self.left.get(job.number)

    def submit(self, job, command, note):
        self.submitted.append(command)
        if isinstance(self.behaviour.get(job.number), BaseException):
            raise self.behaviour[job.number]
        self.queue[job.number] = job
        return job.number

    def ended(self, handles):
        found = []
        for number in handles:
            behave = self.behaviour.get(number)
            found.append(None if behave is None else behave())
        return found

    def cancel(self, handle):
        self.cancelled.append(handle)
        self.behaviour[handle] = lambda: Ended(-9)

    def forget(self, handle):
        self.forgotten.append(handle)

    def close(self):
        self.closed = True


@pytest.fixture
def engine():
    return ScriptedEngine()


def outcomes(pool, jobs):
    with pool:
        found = [outcome for outcome in run_jobs(pool, jobs) if outcome is not None]
    return sorted(found, key=lambda outcome: outcome.job.number)


def pool_of(engine, **settings):
    return RemotePool(PoolSettings(**settings), engine, MACHINE)


def test_outcomes_are_those_of_the_runs_and_what_the_cluster_says_of_the_rest(engine, make_job, finished):
    jobs = [make_job(number, f"seed={number}") for number in range(5)]
    done = finishes(finished)
    engine.behaviour = {
        0: lambda: Ended(done(jobs[0])),
        1: lambda: Ended(-9),
        2: lambda: Ended(-9, "out_of_memory", "SLURM says OUT_OF_MEMORY of job 7"),
        3: lambda: Ended(done(jobs[3]), "timeout", "late, but complete"),
        4: lambda: Ended(1, "error", "the queue is closed"),
    }
    found = outcomes(pool_of(engine), jobs)
    assert [outcome.kind for outcome in found] == ["", "killed", "out_of_memory", "", "error"]
    assert found[2].message == "SLURM says OUT_OF_MEMORY of job 7"
    assert read_result(jobs[4].directory.path).error == "RunError: the queue is closed"
    assert sorted(engine.forgotten) == [0, 1, 2, 3, 4]
    assert len(engine.submitted) == 5  # all at once: how many run is the cluster's matter


def test_a_job_gets_the_decision_of_the_sweep_and_no_secret(engine, make_job, finished, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "hush")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("PATH_OF_THIS_MACHINE", "here")
    job = make_job(0)
    engine.behaviour = {0: lambda: Ended(finishes(finished)(job))}
    outcomes(pool_of(engine), [job])
    [command] = engine.submitted
    assert hardware_from(command.variables[ASSUMED_VARIABLE]) == MACHINE
    assert command.variables["WANDB_MODE"] == "offline"
    assert command.variables["FROM_ENGINE"] == "1"
    assert "hush" not in command.variables.values()
    assert "PATH_OF_THIS_MACHINE" not in command.variables
    assert command.folder == str(Path.cwd())


def test_a_job_that_an_earlier_sweep_left_is_not_queued_again(engine, make_job, finished, capsys):
    jobs = [make_job(0, "seed=1"), make_job(1, "seed=2")]
    output = jobs[0].study_dir / OUTPUT_FOLDER / f"{jobs[0].directory.path.name}.txt"
    output.parent.mkdir(parents=True)
    output.write_text("so far\n")
    engine.left = {0: 0}
    engine.behaviour = {number: lambda n=number: Ended(finishes(finished)(jobs[n])) for number in (0, 1)}
    found = outcomes(pool_of(engine), jobs)
    assert all(outcome.done for outcome in found)
    assert len(engine.submitted) == 1
    assert found[0].output is not None
    assert found[0].output.read_text() == "so far\n"
    assert "seed=1 is in the queue already" in capsys.readouterr().out


def test_what_has_not_started_is_taken_out_of_the_queue_and_what_runs_is_asked_to_stop(engine, make_job):
    jobs = [make_job(0, "seed=1"), make_job(1, "seed=2")]
    pool = pool_of(engine)
    for job in jobs:
        pool.add(job)
    assert pool.step(0.0) == []
    output = pool.running[1].output
    output.write_text("it runs\n")
    pool.step(0.0)
    assert [pool.running[number].began for number in (0, 1)] == [False, True]

    def when_asked():
        return Ended(130) if output.with_suffix(".stop").exists() else None

    engine.behaviour = {1: when_asked}
    stopped = pool.interrupt()
    assert sorted((outcome.job.number, outcome.kind) for outcome in stopped) == [(0, "interrupted"), (1, "interrupted")]
    assert engine.cancelled == [0]
    assert not output.with_suffix(".stop").exists()
    assert not (jobs[0].directory.path / "result.json").exists()


def test_what_does_not_stop_is_cancelled(engine, make_job):
    pool = pool_of(engine, timeout_s=0.0, grace_s=0.05)
    pool.add(make_job(0))
    pool.step(0.0)
    pool.running[0].output.write_text("it hangs\n")
    found = []
    limit = time.monotonic() + 60
    while not found and time.monotonic() < limit:
        found = pool.step(0.01)
    assert [outcome.kind for outcome in found] == ["timeout"]
    assert engine.cancelled == [0]


def test_a_job_that_is_refused_leaves_nothing_to_wait_for(engine, make_job):
    engine.behaviour = {0: ConfigError("no such partition")}
    with pytest.raises(ConfigError, match="no such partition"):
        outcomes(pool_of(engine), [make_job(0)])
    assert engine.closed


@pytest.mark.parametrize("outlives", [True, False])
def test_hanging_up_ends_only_jobs_that_would_end_anyway(outlives):
    pool = pool_of(ScriptedEngine(outlives))
    before = signal.getsignal(signal.SIGHUP)
    with interruptible(pool):
        assert (signal.getsignal(signal.SIGHUP) == before) is outlives
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_machine_is_asked_once_for_a_study(engine, tmp_path):
    assert node_hardware(engine, tmp_path) == MACHINE
    assert node_hardware(engine, tmp_path) == MACHINE
    assert engine.probes == 1
    (tmp_path / OUTPUT_FOLDER / "nodes.json").write_text("{damaged")
    node_hardware(engine, tmp_path)
    assert engine.probes == 2


def test_another_machines_hardware_is_assumed_within_the_block_only():
    here = detect()
    with assumed(MACHINE):
        assert detect() == MACHINE
        assert hardware_from(os.environ[ASSUMED_VARIABLE]) == MACHINE
    assert detect() == here
    assert hardware_from(hardware_text(here)) == here
    with pytest.raises(ConfigError, match="describes no machine"):
        hardware_from('{"cuda": 1}')


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A command that runs a script of the test in the place of a training."""

    def make(script, **choices):
        path = tmp_path / "python"
        path.write_text(f"#!{PYTHON}\nimport os, signal, sys, time\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr("headstart.launch.node.sys.executable", str(path))
        places = {"output": str(tmp_path / "out.txt"), "stop": str(tmp_path / "stop")}
        return Command(("a=1",), str(tmp_path), variables={"GIVEN": "2"}, **{"grace_s": 0.5, **places, **choices})

    return make


def test_a_command_runs_as_if_it_were_alone(command, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    names = ("GIVEN", "LOCAL_RANK", "SLURM_PROCID")
    code = command(f"print(sys.argv[1:], *map(os.environ.get, {names}))\nsys.exit(3)")()
    assert code == 3
    assert (tmp_path / "out.txt").read_text() == "['-m', 'headstart.launch.node', 'a=1'] 2 None None\n"


def test_one_process_of_many_keeps_its_number_and_prints_apart(command, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert command("print(os.environ['SLURM_PROCID'])", one_of_many=True)() == 0
    assert (tmp_path / "out.rank1.txt").read_text() == "1\n"


@pytest.mark.parametrize(("script", "code"), [("pass", 1), ("signal.signal(2, signal.SIG_IGN)", -9)])
def test_a_stop_file_interrupts_and_then_kills(command, tmp_path, script, code):
    script = f"try:\n {script}\n open('ready', 'w').close()\n {WAIT}\nexcept KeyboardInterrupt: sys.exit(1)"
    asking = threading.Thread(target=lambda: (wait_for(tmp_path / "ready"), (tmp_path / "stop").touch()))
    asking.start()
    assert command(script, grace_s=0.5 if code == -9 else 60)() == code
    asking.join()


def test_a_training_that_someone_else_terminates_counts_as_killed(command):
    assert command("sys.exit(130)")() == -signal.SIGTERM
    started = time.monotonic()
    assert command("os.kill(os.getpid(), 15)", displaceable=True)() == -signal.SIGTERM
    assert time.monotonic() - started > 0.5  # SLURM may start it again within that time


def test_what_a_command_started_goes_with_it(command, tmp_path):
    script = "pid = os.fork()\nif pid == 0: time.sleep(60)\nopen('child', 'w').write(str(pid))"
    assert command(script)() == 0
    child = int((tmp_path / "child").read_text())
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        try:
            state = Path(f"/proc/{child}/stat").read_text().split()[2]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    pytest.fail("the child still runs")


def test_submitit_gets_a_stopped_command_to_start_again(command, tmp_path):
    pytest.importorskip("submitit", reason="needs submitit: pip install 'headstart[slurm]'")
    script = f"try:\n open('ready', 'w').close()\n {WAIT}\nexcept KeyboardInterrupt: open('left', 'w').close()"
    job = command(script, grace_s=60)
    thread = threading.Thread(target=job)
    thread.start()
    wait_for(tmp_path / "ready")
    delayed = job.checkpoint()
    assert (tmp_path / "left").exists()
    assert delayed.function is job
    thread.join()
    import pickle

    assert pickle.loads(pickle.dumps(delayed.function)) == Command(**{**job.__dict__, "_process": None})


def test_a_command_that_is_started_again_keeps_what_it_has_done(command, monkeypatch):
    helpers = SimpleNamespace(DelayedSubmission=lambda function: function)
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(helpers=helpers))
    monkeypatch.setitem(sys.modules, "submitit.helpers", helpers)
    job = command("")
    job.arguments = ("seed=1", "rerun=all")
    assert job.checkpoint().arguments == ("seed=1", "rerun=failed")


def test_variables_that_travel():
    given = {"WANDB_PROJECT": "a", "HF_TOKEN": "b", "PYTHONPATH": "c", "HOME": "d", "HEADSTART_X": "e", "HF_HOME": "f"}
    assert travelling(given) == {"WANDB_PROJECT": "a", "PYTHONPATH": "c", "HEADSTART_X": "e", "HF_HOME": "f"}


def test_what_the_cluster_knows_is_stored_beside_the_runs(engine, tmp_path):
    node_hardware(engine, tmp_path)
    [text] = json.loads((tmp_path / OUTPUT_FOLDER / "nodes.json").read_text()).values()
    assert hardware_from(text) == MACHINE


def wait_for(path):
    limit = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < limit, f"{path} never came"
        time.sleep(0.02)
