"""Jobs put together, without training: which share a process, and what becomes of them when it ends."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launch_testing import ScriptedWorkers

from headstart.config import compose, resolve_run
from headstart.launch.fused import FusedPool
from headstart.launch.jobs import Job, Outcome
from headstart.launch.pool import PoolSettings, run_jobs
from headstart.launch.request import answer_path, read_request
from headstart.runs.directory import RunDirectory
from headstart.runs.result import failed_result, write_result
from headstart.system.atomic import write_json


class Together(ScriptedWorkers):
    """Scripted workers whose groups do what ``group`` says with their runs; it returns the exit code."""

    def __init__(self) -> None:
        super().__init__()
        self.group: Callable[[list[RunDirectory], Path], int | None] = lambda runs, request: 0
        self.groups: list[list[str]] = []
        self.plots: list[bool] = []

    def start(self, job: int, arguments: Any, *, entry: str | None = None, **choices: Any) -> None:
        if entry is None:
            super().start(job, arguments, **choices)
            return
        assert entry == "headstart.launch.request:train_request"
        together = Path(arguments[0])
        resolved = read_request(together)
        self.groups.append([run.fingerprint for run in resolved])
        self.plots += [run.config["callbacks"]["plots"] for run in resolved]
        choices["output"].write_text("what it printed\n")
        self._events.append({"started": job, "pid": 1})
        runs = [RunDirectory.open(r.output_dir, r.study, r.key, r.fingerprint) for r in resolved]
        code = self.group(runs, together)
        if code is not None:
            self._events.append({"ended": job, "code": code})


@pytest.fixture
def workers() -> Together:
    return Together()


@pytest.fixture
def job(tmp_path: Path, workers: Together) -> Callable[..., Job]:
    def make(number: int, *overrides: str, alone: Callable[[Job], int | None] | None = None) -> Job:
        fixed = ("backbone.weights=bundled", f"paths.output_dir={tmp_path}", "name=study", f"seed={number + 1}")
        made = Job(number, f"job {number}", overrides, resolve_run(compose([*fixed, *overrides])))
        workers.jobs[number] = made
        workers.behaviour[number] = [alone] if alone else []
        return made

    return make


def run(workers: Together, jobs: list[Job], **settings: Any) -> list[Outcome]:
    plots = settings.pop("plots", False)
    with FusedPool(PoolSettings(**settings), workers, plots=plots) as pool:  # type: ignore[arg-type]
        found = [outcome for outcome in run_jobs(pool, jobs) if outcome is not None]
    return sorted(found, key=lambda outcome: outcome.job.number)


def writes(finished: Callable[..., Any], only: int | None = None, code: int = 0) -> Callable[..., int]:
    """Complete results of the first runs, or of all."""

    def behave(runs: list[RunDirectory], request: Path) -> int:
        for directory in runs[:only]:
            write_result(directory.path, finished(fingerprint=directory.fingerprint))
        return code

    return behave


def finishes(finished: Callable[..., Any]) -> Callable[[Job], int]:
    def behave(job: Job) -> int:
        write_result(job.directory.path, finished(fingerprint=job.resolved.fingerprint))
        return 0

    return behave


def test_jobs_with_the_same_features_share_one_process(job: Callable, workers: Together, finished: Callable):
    workers.group = writes(finished)
    jobs = [job(0), job(1), job(2, "strategy=full", alone=finishes(finished)), job(3, "head=mlp")]
    outcomes = run(workers, jobs)
    assert workers.groups == [[jobs[place].resolved.fingerprint for place in (0, 1, 3)]]
    assert [start["job"] for start in workers.started] == [2]
    assert all(outcome.done and not outcome.returned and outcome.attempts == 1 for outcome in outcomes)


def test_other_features_are_another_process_and_a_single_job_is_no_group(
    job: Callable, workers: Together, finished: Callable
):
    workers.group = writes(finished)
    small = "datamodule.image_size=32"
    jobs = [job(0), job(1), job(2, small), job(3, small), job(4, "cache.dtype=half", alone=finishes(finished))]
    outcomes = run(workers, jobs)
    assert sorted(map(len, workers.groups)) == [2, 2]
    assert [start["job"] for start in workers.started] == [4]
    assert all(outcome.done for outcome in outcomes)


def test_finished_runs_are_returned_and_partial_ones_go_on_alone(
    job: Callable, workers: Together, finished: Callable, capsys: pytest.CaptureFixture
):
    jobs = [job(0), job(1, alone=finishes(finished)), job(2), job(3)]
    write_result(jobs[0].directory.path, finished(fingerprint=jobs[0].resolved.fingerprint))
    partial = jobs[1].directory
    partial.checkpoints.mkdir()
    partial.last_checkpoint.touch()
    workers.group = writes(finished)
    outcomes = run(workers, jobs)
    assert [outcome.returned for outcome in outcomes] == [True, False, False, False]
    assert workers.groups == [[jobs[2].resolved.fingerprint, jobs[3].resolved.fingerprint]]
    assert "1 run trains alone: it goes on from its last epoch" in capsys.readouterr().out


def test_a_job_that_fails_among_others(job: Callable, workers: Together, finished: Callable):
    def behave(runs: list[RunDirectory], request: Path) -> int:
        write_result(runs[0].path, finished(fingerprint=runs[0].fingerprint))
        error = RuntimeError("out of ideas")
        write_result(runs[1].path, failed_result(error, fingerprint=runs[1].fingerprint))
        return 0

    workers.group = behave
    outcomes = run(workers, [job(0), job(1)])
    assert [(outcome.kind, outcome.message) for outcome in outcomes] == [
        ("", ""),
        ("error", "RuntimeError: out of ideas"),
    ]
    # The same command tries the failed one again, the other is there.
    workers.group = writes(finished)
    again = run(workers, [job(0), job(1, alone=finishes(finished))])
    assert [outcome.done for outcome in again] == [True, True]
    assert [outcome.returned for outcome in again] == [True, False]


def test_what_is_handed_back_trains_alone(
    job: Callable, workers: Together, finished: Callable, capsys: pytest.CaptureFixture
):
    def behave(runs: list[RunDirectory], request: Path) -> int:
        write_result(runs[0].path, finished(fingerprint=runs[0].fingerprint))
        write_json(answer_path(request), {runs[1].fingerprint: "its head is strange"})
        return 0

    workers.group = behave
    outcomes = run(workers, [job(0), job(1, alone=finishes(finished))])
    assert all(outcome.done for outcome in outcomes)
    assert [start["job"] for start in workers.started] == [1]
    assert "1 run trains alone: its head is strange" in capsys.readouterr().out


def test_a_process_that_dies_leaves_its_jobs_to_processes_of_their_own(
    job: Callable, workers: Together, finished: Callable
):
    workers.group = writes(finished, only=1, code=-signal.SIGKILL)
    jobs = [job(0), job(1, alone=finishes(finished)), job(2, alone=lambda job: -signal.SIGKILL)]
    outcomes = run(workers, jobs)
    assert [outcome.kind for outcome in outcomes] == ["", "", "killed"]
    assert [start["job"] for start in workers.started] == [1, 2]
    assert len(workers.groups) == 1, "they are not put together again"


def test_an_interruption_ends_every_job_of_the_group(job: Callable, workers: Together, finished: Callable):
    workers.group = lambda runs, request: None
    jobs = [job(0), job(1)]
    with FusedPool(PoolSettings(), workers) as pool:  # type: ignore[arg-type]
        for one in jobs:
            pool.add(one)
        assert pool.step(0.0) == []
        outcomes = pool.interrupt()
    assert sorted((outcome.job.number, outcome.kind) for outcome in outcomes) == [
        (0, "interrupted"),
        (1, "interrupted"),
    ]
    assert all(one.directory.state == "new" for one in jobs)


def test_a_timeout_is_recorded_for_every_job_that_was_not_done(job: Callable, workers: Together, finished: Callable):
    def behave(runs: list[RunDirectory], request: Path) -> None:
        write_result(runs[0].path, finished(fingerprint=runs[0].fingerprint))

    workers.group = behave
    outcomes = run(workers, [job(0), job(1)], timeout_s=0.0)
    assert [outcome.kind for outcome in outcomes] == ["", "timeout"]


def test_a_search_ends_no_runs_because_one_that_shares_their_process_lags(
    job: Callable, workers: Together, finished: Callable
):
    jobs = [job(0), job(1), job(2, "strategy=full")]
    workers.group, workers.behaviour[2] = lambda runs, request: None, [lambda job: None]
    with FusedPool(PoolSettings(n_jobs=2), workers) as pool:  # type: ignore[arg-type]
        for one in jobs:
            pool.add(one)
        pool.step()
        for number in (0, 2):
            pool.stop(number, Outcome(jobs[number], "pruned", "others were better"))
        assert {number: running.stop is None for number, running in pool.running.items()} == {0: True, 2: False}
        pool.interrupt()


def test_pictures_are_drawn_where_the_launcher_is_asked_to(job: Callable, workers: Together, finished: Callable):
    workers.group = writes(finished)
    run(workers, [job(0), job(1)])
    run(workers, [job(2), job(3, "callbacks.plots=false")], plots=True)
    assert workers.plots == [False, False, True, False]


def test_twins_are_trained_once(job: Callable, workers: Together, finished: Callable):
    workers.group = writes(finished)
    twin = job(0)
    jobs = [job(0), job(1), Job(2, "twin", twin.arguments, twin.run)]
    outcomes = run(workers, jobs)
    assert len(workers.groups[0]) == 2
    assert [outcome.returned for outcome in outcomes] == [False, False, True]


def test_nothing_of_the_request_stays(job: Callable, workers: Together, finished: Callable, tmp_path: Path):
    workers.group = writes(finished)
    run(workers, [job(0), job(1)])
    assert not (tmp_path / "study" / ".jobs").exists()
    assert json.loads(next((tmp_path / "study").glob("*/result.json")).read_text())["status"] == "done"
