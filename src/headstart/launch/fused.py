"""Jobs that differ only in their heads share a process and are trained together; the others run as they always do."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.config import ResolvedRun
from headstart.frozen.eligible import obstacle, shared_part
from headstart.launch.jobs import Job, Outcome, conclude, prepare, result_stamp
from headstart.launch.pool import OUTPUT_FOLDER, JobPool, PoolSettings, Waiting, tail_of
from headstart.launch.request import answer_path, write_request
from headstart.launch.workers import Workers
from headstart.system.atomic import read_note
from headstart.system.console import show


@dataclass(frozen=True)
class _Group:
    """Jobs in one process.

    Attributes:
        jobs: all of them, the first gives the process its number.
        request: the file that tells the process.
        before: of each job, :func:`headstart.launch.jobs.result_stamp` from before.
    """

    jobs: tuple[Waiting, ...]
    request: Path
    before: tuple[tuple[int, int] | None, ...]


class FusedPool(JobPool):
    """A pool that puts jobs together which have everything but their heads in common.

    What cannot be trained together, and what a shared process leaves undone, whatever ends it, trains alone.

    Args:
        settings: how processes are run; a group counts as one.
        workers: what starts the processes.
        plots: draw the pictures of runs that are trained together, where they are asked for.
    """

    def __init__(self, settings: PoolSettings, workers: Workers, *, plots: bool = False) -> None:
        super().__init__(settings, workers)
        self._plots = plots
        self._groups: dict[int, _Group] = {}
        self._alone: set[int] = set()

    @property
    def waiting(self) -> int:
        """Jobs that have not started."""
        groups = [self._groups.get(waiting.job.number) for waiting in self._waiting]
        return sum(1 if group is None else len(group.jobs) for group in groups)

    def stop(self, number: int, why: Outcome) -> None:
        """See :class:`JobPool`; that one of several lags behind is no reason to end the others in its process."""
        if why.kind != "pruned" or number not in self._groups:
            super().stop(number, why)

    def _start_waiting(self) -> None:
        self._put_together()
        super()._start_waiting()

    def _put_together(self) -> None:
        """Turn the jobs that wait into groups; those that stay alone are told with the reason."""
        new = [waiting for waiting in self._waiting if waiting.job.number not in self._alone | set(self._groups)]
        shared: dict[str, list[Waiting]] = {}
        reasons: Counter[str] = Counter()
        for waiting in new:
            reason = _obstacle(waiting)
            if reason is None:
                shared.setdefault(shared_part(waiting.job.resolved), []).append(waiting)
            else:
                reasons[reason] += 1
                self._alone.add(waiting.job.number)
        for jobs in shared.values():
            if len(jobs) > 1:
                self._group(jobs)
            else:
                self._alone.add(jobs[0].job.number)
        if new and len(new) > 1:
            _tell(reasons)

    def _group(self, jobs: Sequence[Waiting]) -> None:
        first = jobs[0].job
        for waiting in jobs:
            self._waiting.remove(waiting)
        together = Job(first.number, f"{len(jobs)} runs together", first.arguments, first.run)
        folder = first.study_dir / OUTPUT_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        request = folder / f"{first.directory.path.name}.together.json"
        self._groups[first.number] = _Group(
            tuple(jobs), request, tuple(result_stamp(waiting.job.directory) for waiting in jobs)
        )
        self._waiting.append(Waiting(together))

    def _begin(self, job: Job, output: Path, gpus: tuple[str, ...]) -> None:
        group = self._groups.get(job.number)
        if group is None:
            super()._begin(job, output, gpus)
            return
        output.write_bytes(b"")
        answer_path(group.request).unlink(missing_ok=True)
        runs = [waiting.job.resolved for waiting in group.jobs]
        if not self._plots:
            runs = [_without_plots(run) for run in runs]
        write_request(group.request, runs)
        self._workers.start(
            job.number,
            [str(group.request)],
            fork=True,
            output=output,
            environment=self._environment(job, gpus),
            threads=self._threads(job),
            entry="headstart.launch.request:train_request",
        )

    def _ended(self, number: int, exit_code: int) -> None:
        group = self._groups.pop(number, None)
        if group is None:
            super()._ended(number, exit_code)
            return
        running = self.running.pop(number)
        self._gpus.give_back(running.gpus)
        refused, tail = read_note(answer_path(group.request)), tail_of(running.output)
        share = (time.monotonic() - running.started) / len(group.jobs)
        reasons: Counter[str] = Counter()
        for waiting, before in zip(group.jobs, group.before, strict=True):
            job = waiting.job
            written = result_stamp(job.directory) != before
            if written or running.stop is not None:
                stop = None if running.stop is None else replace(running.stop, job=job)
                outcome = conclude(job, exit_code, before=before, stop=stop, tail=tail)
                self._finish(replace(outcome, seconds=share, attempts=waiting.attempts + 1).retried(waiting.earlier))
                continue
            reason = refused.get(job.resolved.fingerprint) or f"the process they shared ended with code {exit_code}"
            reasons[reason] += 1
            self._alone.add(job.number)
            self._waiting.append(Waiting(job, waiting.attempts, waiting.earlier))
        _tell(reasons)
        for path in (group.request, answer_path(group.request), *([running.output] if exit_code == 0 else [])):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            running.output.parent.rmdir()


def _without_plots(run: ResolvedRun) -> ResolvedRun:
    return replace(run, config={**run.config, "callbacks": {**run.config["callbacks"], "plots": False}})


def _obstacle(waiting: Waiting) -> str | None:
    """Why a job that waits trains alone, or None."""
    if waiting.attempts:
        return "it is tried again"
    reason = obstacle(waiting.job.resolved)
    if reason is None and prepare(waiting.job).action == "resume":
        return "it goes on from its last epoch"
    return reason


def _tell(reasons: Counter[str]) -> None:
    for reason, count in reasons.items():
        show(f"{count} {'run trains' if count == 1 else 'runs train'} alone: {reason}")
