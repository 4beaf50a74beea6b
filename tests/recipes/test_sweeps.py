"""Whole sweeps: what fails fails alone, what was killed goes on, what is there is not done again."""

import csv
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from sweep_testing import Command, epochs_trained, learned, nobody_holds, told, wait_for

from headstart.runs.directory import find_runs
from headstart.runs.result import read_metrics_csv, read_result


@pytest.fixture
def command(tmp_path: Path, repository: Path) -> Command:
    return Command(tmp_path, repository)


@pytest.mark.slow
def test_each_failure_is_told_and_the_others_finish(command: Command):
    code, out = command("-m", "experiment=good,raises,killed,diverges,nothing", "strategy=full", "trainer.max_epochs=2")
    assert code == 1, out
    jobs = told(command.study())
    status = {name.removeprefix("experiment="): (job["status"], job["kind"]) for name, job in jobs.items()}
    assert status == {
        "good": ("done", None),
        "raises": ("failed", "error"),
        "killed": ("failed", "killed"),
        "diverges": ("failed", "diverged"),
        "nothing": ("failed", "config"),
    }, out
    assert "out of ideas" in jobs["experiment=raises"]["error"]
    assert "SIGKILL" in jobs["experiment=killed"]["error"]
    assert "experiment=nothing is unknown" in jobs["experiment=nothing"]["error"]
    assert "error: 4 of 5 runs failed; the others are complete" in out
    assert "Traceback" not in out
    recorded = {name: read_result(command.study() / job["run"]) for name, job in jobs.items() if job["run"]}
    assert recorded["experiment=good"].status == "done"
    assert recorded["experiment=killed"].status == "failed"
    assert recorded["experiment=killed"].config["strategy"] == "full"
    assert "Traceback" in (command.study() / jobs["experiment=raises"]["run"] / "output.txt").read_text()
    assert (command.study() / "report.html").exists()

    # Again: the finished run is returned, by the same command or another.
    good = command.study() / jobs["experiment=good"]["run"]
    before = (good / "result.json").stat()
    code, out = command("-m", "experiment=good,nothing", "strategy=full", "trainer.max_epochs=2")
    assert code == 1
    assert (good / "result.json").stat() == before
    assert told(command.study())["experiment=good"]["returned"]


def test_a_mistake_in_every_job_starts_nothing(command: Command):
    code, out = command("-m", "seed=1,2", "optimizer.lr=fast")
    assert (code, out) == (1, "error: optimizer.lr=fast: must be a number above 0\n")
    assert not command.study().exists()


@pytest.mark.slow
def test_what_is_there_is_returned_without_a_process(command: Command):
    assert command("trainer.max_epochs=1")[0] == 0  # a single run
    (command.folder / "sitecustomize.py").write_text(
        "import sys\nif 'headstart.launch.server' in sys.orig_argv: print('SERVER STARTED', flush=True)\n"
    )
    code, out = command("-m", "seed=1", "trainer.max_epochs=1", "hydra.sweeper.report=false")
    assert code == 0, out
    assert "1 there already" in out
    assert "SERVER STARTED" not in out
    code, out = command("-m", "seed=1,2", "trainer.max_epochs=1", "plan=true")
    assert code == 0
    assert "return" in out
    assert "SERVER STARTED" not in out
    assert len(list(command.study().glob("digits-*"))) == 1


@pytest.mark.slow
def test_a_killed_job_is_tried_again(command: Command):
    code, out = command(
        "-m", "experiment=once_killed", "trainer.max_epochs=1", "hydra.launcher.retries=1", "hydra.sweeper.report=false"
    )
    assert code == 0, out
    [job] = told(command.study()).values()
    assert (job["status"], job["attempts"]) == ("done", 2)


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_stopped_and_goes_on_next_time(command: Command):
    arguments = ("-m", "experiment=hangs", "trainer.max_epochs=2", "hydra.sweeper.report=false", "cache=off")
    code, out = command(*arguments, "hydra.launcher.timeout_s=90")
    assert code == 1, out
    [job] = told(command.study()).values()
    assert job["kind"] == "timeout"
    assert "timeout_s=90" in job["error"]
    run = command.study() / job["run"]
    assert read_result(run).status == "failed"
    assert len(read_metrics_csv(run / "metrics.csv")) == 1
    (command.folder / "mark").touch()
    code, out = command(*arguments)
    assert code == 0, out
    attempts = json.loads((run / "attempts.json").read_text())["attempts"]
    assert [attempt["ended"] for attempt in attempts] == [False, True]


@pytest.mark.slow
def test_ctrl_c_stops_the_jobs_in_order(command: Command):
    process = command.start("-m", "experiment=slow", "seed=1,2", "trainer.max_epochs=50", "cache=off")
    wait_for(lambda: any(command.study().glob("*/checkpoints/last.ckpt")), process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 130, out
    assert "interrupted; the same command goes on" in out
    first = told(command.study())["seed=1"]
    assert first["status"] == "interrupted"
    run = command.study() / first["run"]
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert not (run / "result.json").exists()
    assert nobody_holds(run)


@pytest.mark.slow
def test_a_sweep_that_is_killed_three_times_gives_the_same_results(command: Command):
    arguments = ("-m", "strategy=freeze,full", "seed=1,2", "trainer.max_epochs=12", "hydra.sweeper.report=false")
    code, out = command(*arguments, study="whole")
    assert code == 0, out
    moments = random.Random(5)
    done: dict[str, os.stat_result] = {}
    for target in sorted(moments.sample(range(1, 47), 3)):
        process = command.start(*arguments, study="killed")
        wait_for(lambda target=target: epochs_trained(command.study("killed")) >= target, process)
        time.sleep(moments.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        wait_for(lambda: all(map(nobody_holds, find_runs(command.study("killed")))))
        done |= {path.parent.name: path.stat() for path in command.study("killed").glob("*/result.json")}
    code, out = command(*arguments, study="killed")
    assert code == 0, out
    whole, killed = find_runs(command.study("whole")), find_runs(command.study("killed"))
    assert [run.name for run in whole] == [run.name for run in killed]
    assert len(whole) == 4
    for one, other in zip(whole, killed, strict=True):
        assert learned(one) == learned(other)
        attempts = json.loads((other / "attempts.json").read_text())["attempts"]
        assert [attempt["ended"] for attempt in attempts].count(True) == 1
    assert sum(len(json.loads((run / "attempts.json").read_text())["attempts"]) for run in killed) > 4
    for name, status in done.items():
        assert (command.study("killed") / name / "result.json").stat() == status

    # A fork of the server and a fresh process train alike.
    code, out = command("strategy=full", "seed=2", "trainer.max_epochs=12", study="single")
    assert code == 0, out
    [single] = find_runs(command.study("single"))
    assert learned(single) == learned(next(run for run in whole if run.name == single.name))


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_distributed_jobs_in_a_sweep(command: Command, n_jobs: int):
    code, out = command(
        "-m",
        "trainer.devices=1,2",
        "trainer.strategy=ddp",
        "trainer=cpu",
        "strategy=full",
        "trainer.max_epochs=1",
        f"hydra.launcher.n_jobs={n_jobs}",
        "hydra.sweeper.report=false",
    )
    assert code == 0, out
    devices = {
        name: read_result(command.study() / job["run"]).cost.device for name, job in told(command.study()).items()
    }
    assert devices["trainer.devices=1"].startswith("1 x cpu")
    assert devices["trainer.devices=2"].startswith("2 x cpu")


@pytest.mark.slow
def test_two_jobs_at_a_time_and_the_same_run_twice(command: Command):
    code, out = command(
        "-m", "seed=1,2", "task=auto,multiclass,auto", "trainer.max_epochs=1", "hydra.launcher.n_jobs=2"
    )
    assert code == 0, out
    jobs = json.loads((command.study() / "sweep.json").read_text())["jobs"]
    assert len(jobs) == 6
    assert sum(job["returned"] for job in jobs) == 2
    assert sum(job["attempts"] for job in jobs) == 4
    assert all(job["status"] == "done" for job in jobs)


@pytest.mark.slow
def test_a_search_looks_for_the_metric_that_chooses_checkpoints(command: Command):
    arguments = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.per=null", "hydra.sweeper.report=false", "study.trials=1")
    arguments += ("callbacks.checkpoint.monitor=val/loss", "optimizer.lr=tag(log,interval(1e-4,1e-1))")
    code, out = command(*arguments, "trainer.max_epochs=1")
    assert code == 0, out
    rows = list(csv.DictReader((command.study() / "search.csv").read_text().splitlines()))
    assert len(rows) == 1
    for row in rows:
        result = json.loads((command.study() / row["run"] / "result.json").read_text())
        assert float(row["val/loss"]) == pytest.approx(result["metrics"]["val/loss"])
    code, out = command(*arguments, "trainer.max_epochs=1", "hydra.sweeper.objectives={val/f1: maximize}")
    assert code == 0, out
    assert "val/f1" in (command.study() / "search.csv").read_text().splitlines()[0]


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_gives_each_strategy_its_budget(command: Command):
    arguments = ("-m", "hydra/sweeper=optuna", "strategy=freeze,full", "optimizer.lr=tag(log,interval(1e-4,1e-1))")
    arguments += ("trainer.max_epochs=2", "study.trials=2", "hydra.sweeper.report=false")
    process = command.start(*arguments)
    wait_for(lambda: epochs_trained(command.study()) >= 3, process, timeout_s=300)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, out = command(*arguments)
    assert code == 0, out
    rows = list(csv.DictReader((command.study() / "search.csv").read_text().splitlines()))
    arms = [row["arm"] for row in rows if row["state"] in ("COMPLETE", "PRUNED")]
    assert sorted(arms) == ["strategy=freeze"] * 2 + ["strategy=full"] * 2
    assert len({row["run"] for row in rows}) == 4 == len(find_runs(command.study()))
