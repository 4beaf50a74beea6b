"""Scheduling: what is returned, repeated, retried, stopped, and what is recorded for a job that could not."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from launch_testing import dies, fails, finishes

from headstart.errors import ConfigError, DivergedError
from headstart.launch.pool import JobPool, PoolSettings, run_jobs
from headstart.launch.sweep import check_jobs
from headstart.runs.result import read_result, write_result
from headstart.system.hardware import usable_cores


def outcomes(pool, jobs):
    found = [outcome for outcome in run_jobs(pool, jobs) if outcome is not None]
    return sorted(found, key=lambda outcome: outcome.job.number)


def test_a_finished_run_costs_no_process(workers, make_job, finished):
    job = make_job(0, attempts=[finishes(finished)])
    assert outcomes(JobPool(PoolSettings(1), workers), [job])[0].done
    again = make_job(0)
    [outcome] = outcomes(JobPool(PoolSettings(1), workers), [again])
    assert outcome.done
    assert outcome.returned
    assert len(workers.started) == 1


def test_what_a_dead_job_could_not_record_is_recorded(workers, make_job, finished):
    jobs = [
        make_job(0, "seed=1", attempts=[dies(-9)]),
        make_job(1, "seed=2", attempts=[dies(3)]),
        make_job(2, "seed=3", attempts=[fails(DivergedError("loss is nan"))]),
        make_job(3, problem="no such thing"),
        make_job(4, "seed=4", attempts=[fails(MemoryError("12 GB"))]),
        make_job(5, "seed=5", attempts=[finishes(finished)]),
    ]
    found = outcomes(JobPool(PoolSettings(2), workers), jobs)
    assert [outcome.kind for outcome in found] == ["killed", "error", "diverged", "config", "out_of_memory", ""]
    assert [outcome.failed for outcome in found] == [True] * 5 + [False]
    stored = read_result(jobs[0].directory.path)
    assert (stored.status, stored.config["seed"]) == ("failed", 1)
    assert "SIGKILL" in str(stored.error)
    assert found[1].message == "the last word"
    assert found[1].output is not None
    assert found[1].output.read_text().startswith("what it printed")
    assert found[2].message == "DivergedError: loss is nan"


def test_an_old_result_is_not_taken_for_that_of_a_job_that_died(workers, make_job, finished):
    job = make_job(0, "rerun=all", attempts=[dies(-11)])
    write_result(job.directory.path, finished(fingerprint=job.resolved.fingerprint))
    [outcome] = outcomes(JobPool(PoolSettings(1), workers), [job])
    assert outcome.kind == "killed"
    assert read_result(job.directory.path).status == "done"


def test_a_complete_result_counts_even_if_the_process_crashed_on_its_way_out(workers, make_job, finished):
    def crash_late(job):
        finishes(finished)(job)
        return -11

    assert outcomes(JobPool(PoolSettings(1), workers), [make_job(0, attempts=[crash_late])])[0].done


def test_retries_are_for_the_named_errors_only(workers, make_job, finished):
    settings = PoolSettings(1, retries=2, retry_on=("killed", "ConnectionError"))
    jobs = [
        make_job(0, "seed=1", attempts=[dies(-9), fails(ConnectionError("gone")), finishes(finished)]),
        make_job(1, "seed=2", attempts=[fails(ValueError("wrong"))]),
        make_job(2, "seed=3", attempts=[dies(-9), dies(-9), dies(-9)]),
    ]
    found = outcomes(JobPool(settings, workers), jobs)
    assert [(outcome.kind, outcome.attempts) for outcome in found] == [("", 3), ("error", 1), ("killed", 3)]


def test_a_job_that_was_killed_goes_on_from_its_checkpoint_next_time(workers, make_job):
    job = make_job(0, attempts=[dies(-9)])
    run = job.directory
    run.checkpoints.mkdir()
    run.last_checkpoint.write_text("weights")
    outcomes(JobPool(PoolSettings(1), workers), [job])
    assert run.state == "failed"
    seen = []
    again = make_job(0, attempts=[lambda job: seen.append(job.directory.action) or 1])
    outcomes(JobPool(PoolSettings(1), workers), [again])
    assert seen == ["resume"]


def test_a_job_that_failed_by_itself_starts_anew(workers, make_job):
    job = make_job(0, attempts=[fails(ValueError("bad"))])
    run = job.directory
    run.checkpoints.mkdir()
    run.last_checkpoint.write_text("weights")
    outcomes(JobPool(PoolSettings(1), workers), [job])
    seen = []
    again = make_job(0, attempts=[lambda job: seen.append(job.directory.action) or 1])
    outcomes(JobPool(PoolSettings(1), workers), [again])
    assert seen == ["train"]


def test_rerun_none_returns_the_failure(workers, make_job):
    outcomes(JobPool(PoolSettings(1), workers), [make_job(0, attempts=[fails(ValueError("bad"))])])
    [outcome] = outcomes(JobPool(PoolSettings(1, retries=3, retry_on=("error",)), workers), [make_job(0, "rerun=none")])
    assert (outcome.kind, outcome.returned, len(workers.started)) == ("error", True, 1)


@pytest.mark.parametrize("rerun", ["failed", "all"])
def test_jobs_that_are_the_same_run_train_it_once(workers, make_job, finished, rerun):
    jobs = [make_job(0, f"rerun={rerun}", attempts=[finishes(finished)])]
    jobs += [make_job(number, f"rerun={rerun}", "debug=true") for number in (1, 2)]
    found = outcomes(JobPool(PoolSettings(3), workers), jobs)
    assert [outcome.returned for outcome in found] == [False, True, True]
    assert all(outcome.done for outcome in found)
    assert len(workers.started) == 1


def test_a_job_that_takes_too_long_is_asked_then_told(workers, make_job):
    job = make_job(0, attempts=[lambda job: None])
    [outcome] = outcomes(JobPool(PoolSettings(1, timeout_s=0.05), workers), [job])
    assert outcome.kind == "timeout"
    assert "timeout_s=0.05" in outcome.message
    assert workers.signals == [(0, 2)]
    assert read_result(job.directory.path).details["resumable"]


def test_a_job_that_does_not_listen_is_killed(workers, make_job):
    workers.signal = lambda job, number: (
        workers.signals.append((job, int(number))),
        number == 9 and workers._events.append({"ended": job, "code": -9}),
    )
    job = make_job(0, attempts=[lambda job: None])
    [outcome] = outcomes(JobPool(PoolSettings(1, timeout_s=0.05, grace_s=0.05), workers), [job])
    assert outcome.kind == "timeout"
    assert workers.signals == [(0, 2), (0, 9)]


def test_an_interrupt_stops_what_runs_and_records_no_failure(workers, make_job):
    running = make_job(0, "seed=1", attempts=[lambda job: None])
    pool = JobPool(PoolSettings(1), workers)
    jobs = run_jobs(pool, [running, make_job(1, "seed=2")])
    assert next(jobs) is None
    [outcome] = pool.interrupt()
    assert outcome.kind == "interrupted"
    assert not outcome.failed
    assert len(workers.started) == 1
    assert running.directory.state == "new"


def test_cores_are_shared_out_and_foreign_ranks_forgotten(workers, make_job, finished, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"):
        monkeypatch.setenv(name, "1")
    jobs = [
        make_job(0, attempts=[finishes(finished)]),
        make_job(1, "trainer=ddp_cpu", attempts=[finishes(finished)]),
    ]
    outcomes(JobPool(PoolSettings(2), workers), jobs)
    alone, distributed = workers.started
    assert (alone["fork"], distributed["fork"]) == (True, False)
    assert alone["threads"] == max(1, usable_cores() // 2)
    assert distributed["environment"]["OMP_NUM_THREADS"] == str(max(1, usable_cores() // 2 // 2))
    assert not {"LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "PL_GLOBAL_SEED"} & set(alone["environment"])


@pytest.mark.parametrize(
    ("gpus", "settings", "expected"), [(0, {}, 1), (0, {"n_jobs_cpu": 2}, 2), (3, {"n_jobs_cpu": 2}, 3)]
)
def test_how_many_jobs_at_a_time_depends_on_the_machine(workers, monkeypatch, gpus, settings, expected):
    from headstart.system.hardware import Hardware

    monkeypatch.setattr("headstart.launch.pool.detect", lambda: Hardware(cuda=((9, 0),) * gpus, cores=8))
    assert JobPool(PoolSettings(**settings), workers).n_jobs == expected
    assert JobPool(PoolSettings(n_jobs=5, **settings), workers).n_jobs == 5


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"n_jobs": 0}, r"hydra\.launcher\.n_jobs=0: must be a whole number of at least 1 or null"),
        ({"timeout_s": "1h"}, r"hydra\.launcher\.timeout_s=1h: must be a number"),
        ({"retry_on": "killed"}, r"hydra\.launcher\.retry_on=killed: must be a list"),
    ],
)
def test_impossible_settings_are_refused_by_their_names(choice, said):
    with pytest.raises(ConfigError, match=said):
        PoolSettings(**choice)


def test_the_file_for_a_jobs_output_is_there_before_its_process(workers, make_job, finished):
    """A job that ends removes the folder of these files when it is empty; a process that starts must find it."""
    jobs = [make_job(number, f"seed={number}", attempts=[finishes(finished)]) for number in range(3)]
    assert all(outcome.done for outcome in outcomes(JobPool(PoolSettings(n_jobs=2), workers), jobs))
    assert [started["output_there"] for started in workers.started] == [True] * 3


def test_the_first_gpu_free_goes_to_the_next_job(workers, make_job, finished, monkeypatch):
    from headstart.system.hardware import Hardware

    for module in ("headstart.launch.pool", "headstart.config.resolve"):
        monkeypatch.setattr(f"{module}.detect", lambda: Hardware(cuda=((9, 0), (9, 0)), cores=8))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    jobs = [make_job(number, f"seed={number}", attempts=[finishes(finished)]) for number in range(3)]
    jobs.append(make_job(3, "trainer=ddp", attempts=[finishes(finished)]))
    pool = JobPool(PoolSettings(), workers)
    assert pool.n_jobs == 2
    assert all(outcome.done for outcome in outcomes(pool, jobs))
    given = {started["job"]: started["environment"]["CUDA_VISIBLE_DEVICES"] for started in workers.started}
    assert (given[0], given[1], given[3]) == ("0", "1", "0,1")


def test_only_a_mistake_in_every_job_is_one_of_the_sweep(make_job):
    good, bad = make_job(0), make_job(1, problem="optimizer.lr=fast: wrong")
    check_jobs([good, bad])
    with pytest.raises(ConfigError, match=r"^optimizer.lr=fast: wrong\nother$"):
        check_jobs([bad, replace(bad, problem="other"), bad])


# The server itself.


def test_the_server_starts_signals_and_reports(tmp_path, monkeypatch):
    from headstart.launch.workers import Workers, job_environment

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if os.environ.get('JOB') == 'sleep':\n"
        "    print('slept', os.getpid() == os.getsid(0), flush=True)\n"
        "    time.sleep(900)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    workers = Workers("headstart.commands.cli:train_main")
    try:
        for number, job in enumerate(("help", "sleep", "sleep")):
            environment = job_environment({"JOB": job})
            workers.start(number, ["--help"], fork=False, output=tmp_path / f"{number}.txt", environment=environment)
        seen: dict[int, int] = {}
        pids: dict[int, int] = {}
        limit = time.monotonic() + 300
        while len(seen) < 2:
            assert time.monotonic() < limit
            for event in workers.events(0.2):
                if "started" in event:
                    pids[event["started"]] = event["pid"]
                else:
                    seen[event["ended"]] = event["code"]
            slept = tmp_path / "1.txt"
            if 1 not in seen and slept.exists() and slept.read_text():
                workers.signal(1, 15)
        assert seen == {0: 0, 1: -15}
        assert "Usage" in (tmp_path / "0.txt").read_text()
        assert (tmp_path / "1.txt").read_text() == "slept True\n"
    finally:
        workers.close()
    # The end of the sweep is the end of its jobs.
    limit = time.monotonic() + 60
    while _alive(pids[2]):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_file_of_the_users_does_not_stand_in_for_pythons_own_module(tmp_path, monkeypatch):
    from headstart.launch.workers import Workers, job_environment

    monkeypatch.chdir(tmp_path)
    (tmp_path / "random.py").write_text('raise RuntimeError("user file imported")\n')
    workers, output = Workers("headstart.commands.cli:train_main"), tmp_path / "output.txt"
    ended: dict[str, Any] = {}
    try:
        workers.start(0, ["--help"], fork=False, output=output, environment=job_environment())
        limit = time.monotonic() + 300
        while "ended" not in ended:
            assert time.monotonic() < limit
            ended = next((event for event in workers.events(0.2) if "ended" in event), {})
    finally:
        workers.close()
    assert ended["code"] == 0, output.read_text()


@pytest.mark.parametrize("first", ["", "{folder}"])
def test_jobs_find_the_users_modules_where_the_sweep_finds_them(first, tmp_path, monkeypatch):
    """An interactive session finds them in the working folder, a script beside itself."""
    from headstart.launch.workers import job_environment

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("HERE = True\n")
    monkeypatch.setattr("sys.path", [first.format(folder=tmp_path), *sys.path])
    command = [sys.executable, "-c", "import mine; print(mine.HERE)"]
    found = subprocess.run(command, env=job_environment(), cwd="/", capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
