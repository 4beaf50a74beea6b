"""One job of a sweep, and what became of it."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from headstart.config import ResolvedRun
from headstart.errors import RunError
from headstart.runs.directory import RunDirectory
from headstart.runs.result import RESULT_FILE, Result, failed_result, read_result, write_result
from headstart.system.atomic import write_json

Kind = Literal["", "config", "error", "out_of_memory", "diverged", "killed", "timeout", "pruned", "interrupted"]
"""What ended a job, as ``retry_on`` and the summary name it; empty for a finished one."""

# Strategies of Lightning that start the other processes by repeating the command of the first.
_REPEAT_THE_COMMAND = ("ddp", "fsdp", "deepspeed", "hpu_parallel")


@dataclass(frozen=True)
class Job:
    """One run of a sweep, decided before anything starts.

    Attributes:
        number: place in the sweep, from 0.
        label: the overrides that distinguish it from the other jobs.
        arguments: of the command that would train it alone, ``headstart train ARGUMENTS``.
        run: what it resolves to; None where it cannot be.
        problem: why it cannot be, one line for each mistake.
    """

    number: int
    label: str
    arguments: tuple[str, ...]
    run: ResolvedRun | None
    problem: str = ""

    @property
    def resolved(self) -> ResolvedRun:
        """What it resolves to, for a job without a problem."""
        assert self.run is not None
        return self.run

    @property
    def directory(self) -> RunDirectory:
        """Its run directory, made if need be."""
        return self.resolved.directory()

    @property
    def study_dir(self) -> Path:
        """The folder of its study."""
        return Path(self.resolved.output_dir) / self.resolved.study

    @property
    def gpus(self) -> int | list[int]:
        """How many GPUs it needs, or the very ones that it asks for; 0 without a GPU."""
        trainer = self.resolved.settings.trainer
        return trainer.devices if trainer.accelerator == "gpu" else 0

    @property
    def processes(self) -> int:
        """How many processes it has on this machine."""
        return self.resolved.settings.trainer.processes

    @property
    def nodes(self) -> int:
        """How many machines it has."""
        return self.resolved.settings.trainer.num_nodes

    @property
    def repeats_its_command(self) -> bool:
        """Whether it starts further processes with its own command line, and so needs a process that has one."""
        trainer = self.resolved.settings.trainer
        forks = trainer.strategy.endswith(("_spawn", "_fork", "_notebook"))
        return not forks and (trainer.distributed or trainer.strategy.startswith(_REPEAT_THE_COMMAND))

    @property
    def max_epochs(self) -> int:
        """How long it trains at most."""
        return self.resolved.settings.trainer.max_epochs


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        kind: empty for a finished run, else what ended it.
        message: of a job that is not finished, in one line.
        seconds: of this command, all attempts together.
        result: of a finished run.
        returned: the finished run was there already.
        attempts: how often it was started.
        output: what the last process printed, where it was kept.
    """

    job: Job
    kind: Kind = ""
    message: str = ""
    seconds: float = 0.0
    result: Result | None = None
    returned: bool = False
    attempts: int = 0
    output: Path | None = None

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return self.kind == ""

    @property
    def failed(self) -> bool:
        """Whether the job failed; one that a search or the user stopped did not."""
        return self.kind not in ("", "pruned", "interrupted")

    @property
    def monitor(self) -> tuple[str, float | None]:
        """Name and value of the metric that chose the checkpoint; no value without a result."""
        if self.result is None:
            return "", None
        name = str(self.result.details.get("monitor", "val/acc"))
        return name, self.result.metrics.get(name)

    def retried(self, earlier: "Outcome | None") -> "Outcome":
        """With the time of the attempts before it."""
        return self if earlier is None else replace(self, seconds=self.seconds + earlier.seconds)


def stored_outcome(job: Job) -> Outcome | None:
    """The outcome of a job that needs no process: a mistake in its choices, or a run that is there."""
    if job.problem:
        return Outcome(job, "config", job.problem)
    run = job.directory
    if run.action != "return":
        return None
    result = run.result()
    if result.status == "failed":
        return Outcome(job, kind_of(result.error or ""), f"{result.error} (rerun=none)", returned=True)
    return Outcome(job, result=result, returned=True)


def prepare(job: Job) -> RunDirectory:
    """The run directory before its job starts; a run that was killed from outside goes on where it was."""
    run = job.directory
    if run.state == "failed" and run.rerun == "failed" and run.last_checkpoint.exists():
        result = run.result()
        if result.details.get("resumable"):
            (run.path / RESULT_FILE).unlink(missing_ok=True)
    return run


def result_stamp(run: RunDirectory) -> tuple[int, int] | None:
    """Tells one ``result.json`` from the next."""
    try:
        status = (run.path / RESULT_FILE).stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino


def conclude(job: Job, exit_code: int, *, before: tuple[int, int] | None, stop: Outcome | None, tail: str) -> Outcome:
    """What a process that has ended left behind; what it could not record itself is recorded here.

    Args:
        job: the job.
        exit_code: of its process, negative for a signal.
        before: :func:`result_stamp` from before it started.
        stop: why it was stopped from here, if it was.
        tail: the last lines that it printed.
    """
    run = job.directory
    after = result_stamp(run)
    result = None if after is None else read_result(run.path)
    if result is not None and result.status == "done" and (after != before or exit_code == 0):
        return Outcome(job, result=result)
    if result is not None and result.status == "failed" and after != before:
        return Outcome(job, kind_of(result.error or ""), result.error or "")
    if stop is not None:
        outcome = stop
    elif exit_code < 0:
        guess = " (the system may have run out of memory)" if -exit_code == signal.SIGKILL else ""
        outcome = Outcome(job, "killed", f"killed by {_signal_name(-exit_code)}{guess}")
    else:
        said = _last_error(tail)
        outcome = Outcome(job, kind_of(said), said or f"ended with exit code {exit_code} and without a result")
    if outcome.kind != "interrupted" and (result is None or result.status == "failed"):
        _record(job, outcome)
    return outcome


def _record(job: Job, outcome: Outcome) -> None:
    """Write the ``result.json`` that the process could not write any more."""
    run = job.directory
    failure = failed_result(
        RunError(outcome.message),
        fingerprint=job.resolved.fingerprint,
        config=job.resolved.flat(),
        cost=run.cost(),
        details={"outcome": outcome.kind, "resumable": outcome.kind in ("killed", "timeout", "pruned")},
    )
    try:
        with run.lock(wait=False):
            write_result(run.path, failure)
    except RunError:
        return  # Another process trains this run now, and will say how that ended.


def kind_of(error: str) -> Kind:
    """What an error's text stands for; the text starts with the exception's name."""
    name = error.partition(":")[0].strip()
    said = ("out of memory", "can't allocate memory", "cannot allocate memory", "defaultcpuallocator")
    if name in ("OutOfMemoryError", "MemoryError") or any(words in error.lower() for words in said):
        return "out_of_memory"
    if name == "DivergedError":
        return "diverged"
    return "config" if name == "ConfigError" else "error"


def record_sweep(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write what became of each job as JSON."""
    jobs = [
        {
            "job": outcome.job.number,
            "overrides": outcome.job.label,
            "run": None if outcome.job.run is None else outcome.job.directory.path.name,
            "status": "done" if outcome.done else "failed" if outcome.failed else outcome.kind,
            "kind": outcome.kind or None,
            "error": outcome.message or None,
            "returned": outcome.returned,
            "attempts": outcome.attempts,
            "seconds": round(outcome.seconds, 3),
        }
        for outcome in sorted(outcomes, key=lambda outcome: outcome.job.number)
    ]
    write_json(path, {"jobs": jobs})


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_error(tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    said = [line.partition("error: ")[2] for line in lines if line.startswith("error: ")]
    return said[-1] if said else lines[-1] if lines else ""
