"""Runs jobs, some at a time: devices, time-outs, retries, and an outcome for each."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

from headstart.launch.devices import Gpus, visible_gpus
from headstart.launch.jobs import Job, Outcome, conclude, prepare, result_stamp, stored_outcome
from headstart.launch.workers import HARD, SOFT, ServerLostError, Workers, job_environment
from headstart.system.hardware import detect, usable_cores
from headstart.system.interpreter import interrupt
from headstart.system.options import AtLeast, check_fields

OUTPUT_FOLDER = ".jobs"
OUTPUT_FILE = "output.txt"
_TICK_S = 0.2
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class PoolSettings:
    """How jobs are run.

    Attributes:
        n_jobs: how many at a time; None: one per GPU, or ``n_jobs_cpu`` on a machine without.
        timeout_s: for one attempt; None: no limit.
        retries: further attempts after a failure that ``retry_on`` names.
        retry_on: kinds of outcomes (``killed``, ``timeout``, ``out_of_memory``, …) and names of exceptions.
        grace_s: from asking a job to stop to killing it.
        n_jobs_cpu: how many at a time without a GPU, where ``n_jobs`` says nothing.
    """

    n_jobs: Annotated[int, AtLeast(1)] | None = None
    timeout_s: Annotated[float, AtLeast(0)] | None = None
    retries: Annotated[int, AtLeast(0)] = 0
    retry_on: Sequence[str] = ()
    grace_s: Annotated[float, AtLeast(0)] = 20.0
    n_jobs_cpu: Annotated[int, AtLeast(1)] = 1

    def __post_init__(self) -> None:
        check_fields("hydra.launcher", self)


@dataclass
class Running:
    """A job with a process.

    Attributes:
        job: the job.
        started: when its process was asked for, by the monotonic clock.
        output: file that gets what it prints.
        gpus: what it was given.
        before: :func:`headstart.launch.jobs.result_stamp` from before.
        attempts: this one included.
        earlier: the outcome of the attempt before.
        began: whether its process is there; until then the server may still import.
        stop: why it is being stopped, if it is.
        kill_at: when it will be killed, if it is being stopped.
    """

    job: Job
    started: float
    output: Path
    gpus: tuple[str, ...]
    before: tuple[int, int] | None
    attempts: int
    earlier: Outcome | None
    began: bool = False
    stop: Outcome | None = None
    kill_at: float | None = None


@dataclass
class Waiting:
    """A job without a process.

    Attributes:
        job: the job.
        attempts: before.
        earlier: the outcome of the last one.
    """

    job: Job
    attempts: int = 0
    earlier: Outcome | None = field(default=None)


class JobPool:
    """Jobs in, outcomes out.

    A job whose result is there already costs no process. Two jobs that resolve to the same run train it once.

    Args:
        settings: how jobs are run.
        workers: what starts the processes.
    """

    interrupted_by: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGHUP)

    def __init__(self, settings: PoolSettings, workers: Workers) -> None:
        self.settings = settings
        self.n_jobs = settings.n_jobs or self.default_jobs
        names = self._gpu_names()
        self._gpus = Gpus(names, jobs_per_gpu=-(-self.n_jobs // max(1, len(names))))
        self._workers = workers
        self._waiting: deque[Waiting] = deque()
        self._finished: list[Outcome] = []
        self._seen: dict[str, Outcome | None] = {}
        self._twins: dict[str, list[Job]] = {}
        self._loaded = False
        self.running: dict[int, Running] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.interrupt()
        self._workers.close()

    @property
    def default_jobs(self) -> int:
        """How many at a time where nobody says."""
        return len(detect().cuda) or self.settings.n_jobs_cpu

    @property
    def waiting(self) -> int:
        """Jobs that have not started."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether an outcome is still to come."""
        return bool(self._waiting or self.running or self._finished)

    def add(self, job: Job) -> None:
        """Run a job when there is room for it."""
        name = "" if job.problem else job.resolved.fingerprint
        if name in self._seen:
            earlier = self._seen[name]
            if earlier is None:
                self._twins.setdefault(name, []).append(job)
            else:
                self._finished.append(_same(earlier, job))
            return
        outcome = stored_outcome(job)
        if name:
            self._seen[name] = outcome
        if outcome is None:
            self._waiting.append(Waiting(job))
        else:
            self._finished.append(outcome)

    def step(self, timeout_s: float = _TICK_S) -> list[Outcome]:
        """Start what can start, wait a moment, and return what has ended since the last time."""
        self._start_waiting()
        try:
            events = [] if self._finished else self._workers.events(timeout_s)
        except ServerLostError as lost:
            self._server_lost(lost)
            events = []
        for event in events:
            self._loaded |= "ready" in event
            if event.get("started") in self.running:
                running = self.running[event["started"]]
                running.began, running.started = True, time.monotonic()
            elif event.get("ended") in self.running:
                self._explain(self.running[event["ended"]], event)
                self._ended(event["ended"], event["code"])
        self._check_times()
        finished, self._finished = self._finished, []
        return finished

    def stop(self, number: int, why: Outcome) -> None:
        """Ask a running job to stop; it is killed after the grace period. ``why`` becomes its outcome."""
        running = self.running.get(number)
        if running is not None and running.stop is None:
            running.stop = why
            running.kill_at = time.monotonic() + self.settings.grace_s
            self._workers.signal(number, SOFT)

    def interrupt(self) -> list[Outcome]:
        """Stop everything: running jobs may finish writing what they write. Returns their outcomes."""
        self._waiting.clear()
        for running in list(self.running.values()):
            self.stop(running.job.number, Outcome(running.job, "interrupted", "interrupted"))
        stopped: list[Outcome] = []
        try:
            while self.running:
                stopped += self.step()
        except KeyboardInterrupt:  # The user does not want to wait.
            self.running.clear()
            self._workers.close()
        return stopped

    def _start_waiting(self) -> None:
        started = True
        while started and len(self.running) < self.n_jobs:
            started = False
            for waiting in list(self._waiting):
                gpus = self._gpus.take(waiting.job.gpus)
                if gpus is None:
                    continue
                self._waiting.remove(waiting)
                self._start(waiting, gpus)
                started = True
                break

    def _start(self, waiting: Waiting, gpus: tuple[str, ...]) -> None:
        job = waiting.job
        run = prepare(job)
        output = job.study_dir / OUTPUT_FOLDER / f"{run.path.name}.txt"
        output.parent.mkdir(parents=True, exist_ok=True)
        self.running[job.number] = Running(
            job, time.monotonic(), output, gpus, result_stamp(run), waiting.attempts + 1, waiting.earlier
        )
        try:
            self._begin(job, output, gpus)
        except ServerLostError as lost:
            self._server_lost(lost)

    def _begin(self, job: Job, output: Path, gpus: tuple[str, ...]) -> None:
        """Start the process of a job.

        Args:
            job: the job.
            output: file that gets what it prints.
            gpus: of this machine, for it alone.
        """
        output.write_bytes(b"")  # While a file is in it, no other job's end removes the folder.
        threads = self._threads(job)
        environment = self._environment(job, gpus)
        if threads and job.repeats_its_command:
            environment["OMP_NUM_THREADS"] = str(threads)
        self._workers.start(
            job.number,
            job.arguments,
            fork=not job.repeats_its_command,
            output=output,
            environment=environment,
            threads=threads,
        )

    def _environment(self, job: Job, gpus: tuple[str, ...]) -> dict[str, str]:
        """Of a job's process, which sees the GPUs that it was given and no others."""
        environment = job_environment()
        if gpus and isinstance(job.gpus, int):
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        return environment

    def _gpu_names(self) -> tuple[str, ...]:
        """What there is to give out."""
        return visible_gpus(len(detect().cuda))

    def _threads(self, job: Job) -> int | None:
        """Torch's threads for each process of a job; None leaves them as they are."""
        if self.n_jobs == 1 or "OMP_NUM_THREADS" in os.environ:
            return None
        return max(1, usable_cores() // self.n_jobs // max(1, job.processes if job.repeats_its_command else 1))

    def _explain(self, running: Running, event: dict[str, Any]) -> None:
        """Whoever ended the job may know more than its exit code says."""
        if running.stop is None and "kind" in event:
            running.stop = Outcome(running.job, event["kind"], event["message"])

    def _ended(self, number: int, exit_code: int) -> None:
        running = self.running.pop(number)
        self._gpus.give_back(running.gpus)
        tail = tail_of(running.output)
        outcome = conclude(running.job, exit_code, before=running.before, stop=running.stop, tail=tail)
        outcome = replace(
            outcome,
            seconds=time.monotonic() - running.started,
            attempts=running.attempts,
            output=_keep(running.output, running.job.directory.path / OUTPUT_FILE),
        ).retried(running.earlier)
        if self._worth_retrying(outcome):
            self._waiting.append(Waiting(running.job, running.attempts, outcome))
        else:
            self._finish(outcome)

    def _finish(self, outcome: Outcome) -> None:
        name = outcome.job.resolved.fingerprint
        self._seen[name] = outcome
        self._finished += [outcome, *(_same(outcome, job) for job in self._twins.pop(name, []))]

    def _worth_retrying(self, outcome: Outcome) -> bool:
        names = {outcome.kind, outcome.message.partition(":")[0]}
        wanted = bool(names & set(self.settings.retry_on))
        again = outcome.job.resolved.settings.rerun != "none" and outcome.attempts <= self.settings.retries
        return outcome.failed and wanted and again

    def _check_times(self) -> None:
        now, limit = time.monotonic(), self.settings.timeout_s
        for running in list(self.running.values()):
            if running.kill_at is not None and now > running.kill_at:
                running.kill_at = None
                self._workers.signal(running.job.number, HARD)
            elif running.began and running.stop is None and limit is not None and now - running.started > limit:
                self.stop(running.job.number, Outcome(running.job, "timeout", f"stopped after timeout_s={limit:g}"))

    def _server_lost(self, lost: ServerLostError) -> None:
        """Its jobs went with it. What has not started goes to a new server, unless the imports themselves fail."""
        if not self._loaded and any(not running.job.repeats_its_command for running in self.running.values()):
            self.running.clear()
            raise lost
        self._loaded = False
        for number in list(self.running):
            self._ended(number, -signal.SIGKILL)


@contextmanager
def interruptible(pool: JobPool) -> Iterator[None]:
    """Within the block, being terminated is as Ctrl-C, and so is being hung up on unless the jobs outlive that."""
    before = {number: signal.signal(number, interrupt) for number in pool.interrupted_by}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_jobs(pool: JobPool, jobs: Sequence[Job]) -> Iterator[Outcome | None]:
    """Run jobs to their end; yields each outcome, and None whenever a moment has passed."""
    for job in jobs:
        pool.add(job)
    while pool.busy:
        outcomes = pool.step()
        yield from outcomes
        if not outcomes:
            yield None


def _same(outcome: Outcome, job: Job) -> Outcome:
    """The outcome of a job that resolves to the same run as another one."""
    return replace(outcome, job=job, returned=True, seconds=0.0, attempts=0)


def tail_of(path: Path) -> str:
    """The end of what a job printed."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _keep(output: Path, place: Path) -> Path | None:
    """Move what a job printed into its run directory."""
    try:
        output.replace(place)
    except OSError:
        return output if output.exists() else None
    with suppress(OSError):
        output.parent.rmdir()
    return place
