"""Jobs without training: workers that end as a test says."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.launch.jobs import Job
from headstart.runs.result import failed_result, write_result

Behaviour = Callable[[Job], int]


class ScriptedWorkers:
    """Stands in for the server: each job ends at once with the code that its behaviour returns; None never ends."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.behaviour: dict[int, list[Callable[[Job], int | None]]] = {}
        self.started: list[dict[str, Any]] = []
        self.signals: list[tuple[int, int]] = []
        self._events: list[dict[str, Any]] = []

    def start(
        self,
        job: int,
        arguments: Sequence[str],
        *,
        fork: bool,
        output: Path,
        environment: Mapping[str, str],
        threads: int | None = None,
    ) -> None:
        started = {"job": job, "fork": fork, "environment": dict(environment), "threads": threads}
        self.started.append(started | {"output_there": output.exists()})
        output.write_text("what it printed\nerror: the last word\n")
        self._events.append({"started": job, "pid": 1})
        code = self.behaviour[job].pop(0)(self.jobs[job])
        if code is not None:
            self._events.append({"ended": job, "code": code})

    def signal(self, job: int, number: int) -> None:
        self.signals.append((job, int(number)))
        self._events.append({"ended": job, "code": -int(number)})

    def events(self, timeout_s: float) -> list[dict[str, Any]]:
        event, self._events = self._events[:1], self._events[1:]
        return event

    def close(self) -> None:
        pass


def finishes(finished: Callable[..., Any]) -> Behaviour:
    """Writes a complete result and exits with 0."""

    def behave(job: Job) -> int:
        run = job.directory
        write_result(run.path, finished(fingerprint=run.fingerprint))
        return 0

    return behave


def fails(error: BaseException) -> Behaviour:
    """Writes a failed result and exits with 1."""

    def behave(job: Job) -> int:
        run = job.directory
        write_result(run.path, failed_result(error, fingerprint=run.fingerprint))
        return 1

    return behave


def dies(code: int) -> Behaviour:
    """Leaves nothing behind."""
    return lambda job: code
