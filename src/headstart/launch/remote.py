"""Jobs that a cluster runs: the same outcomes, retries and records as on this machine, other ways to start and stop.

The sweep, its study's folder and every job must see the same files. A job is asked to stop by a file beside its output,
which works wherever it runs and whatever runs it.
"""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.launch.jobs import Job, Kind
from headstart.launch.node import Command, travelling
from headstart.launch.pool import OUTPUT_FOLDER, JobPool, PoolSettings
from headstart.launch.workers import HARD, Workers, job_environment
from headstart.system.atomic import read_note, write_json
from headstart.system.console import show
from headstart.system.digests import digest
from headstart.system.hardware import ASSUMED_VARIABLE, Hardware, hardware_from, hardware_text

NODES_FILE = "nodes.json"


@dataclass(frozen=True)
class Ended:
    """How a job of a cluster ended.

    Attributes:
        code: exit code of its command, negative for a signal.
        kind: what the cluster says ended it, if it says so.
        message: in one line.
    """

    code: int
    kind: Kind = ""
    message: str = ""


def last_line(error: object) -> str:
    """What a traceback ends with."""
    return [line for line in str(error).splitlines() if line.strip()][-1]


class Engine(ABC):
    """What a cluster's software must offer.

    Attributes:
        poll_s: seconds between two looks at the jobs.
        outlives: whether jobs go on when the sweep's process has gone.
        several_nodes: whether one job may have more than one machine.
    """

    poll_s: float = 1.0
    outlives: bool = False
    several_nodes: bool = False

    @property
    @abstractmethod
    def resources(self) -> Mapping[str, Any]:
        """What a job asks for, as far as it decides what a machine has."""

    @property
    def variables(self) -> Mapping[str, str]:
        """Of the environment of every job."""
        return {}

    @abstractmethod
    def probe(self, folder: Path) -> Hardware:
        """What a machine has that runs jobs.

        Args:
            folder: for notes.
        """

    def attach(self, job: Job, note: Path) -> Any:
        """The handle of a job that an earlier sweep left running or waiting; None if it left none."""
        return None

    @abstractmethod
    def submit(self, job: Job, command: Command, note: Path) -> Any:
        """Queue a job; returns a handle.

        Raises:
            RunError: it is refused.
        """

    @abstractmethod
    def ended(self, handles: Sequence[Any]) -> list[Ended | None]:
        """How each job ended; None for those that wait or run."""

    @abstractmethod
    def cancel(self, handle: Any) -> None:
        """Take a job out of the queue, or kill it."""

    @abstractmethod
    def forget(self, handle: Any) -> None:
        """A job has ended, and its outcome is known."""

    @abstractmethod
    def close(self) -> None:
        """No more jobs."""


@dataclass
class _Remote:
    handle: Any
    output: Path
    stop: Path
    began: bool = False


class RemoteWorkers(Workers):
    """Starts jobs on a cluster, signals them, hears of their ends.

    Args:
        engine: the cluster's software.
        grace_s: from asking a job to stop to killing it.
    """

    def __init__(self, engine: Engine, grace_s: float) -> None:
        self._engine = engine
        self._grace_s = grace_s
        self._jobs: dict[int, _Remote] = {}
        self._taken_out: list[int] = []
        self._looked = 0.0

    def queue(self, job: Job, output: Path, variables: Mapping[str, str]) -> None:
        """Queue a job, or go on with the one that is in the queue.

        Args:
            job: the job.
            output: file that gets what it prints.
            variables: of its environment, beside those of its machine.
        """
        stop, note = output.with_suffix(".stop"), output.with_suffix(".json")
        handle = self._engine.attach(job, note)
        if handle is None:
            for old in (output, stop, note):
                old.unlink(missing_ok=True)
            command = Command(
                job.arguments,
                str(Path.cwd()),
                str(output),
                dict(variables),
                str(stop),
                grace_s=self._grace_s,
                one_of_many=job.nodes > 1,
                displaceable=self._engine.outlives,
            )
            handle = self._engine.submit(job, command, note)
        else:
            show(f"{job.label} is in the queue already")
        self._jobs[job.number] = _Remote(handle, output, stop)

    def signal(self, job: int, number: int) -> None:
        """Ask a running job to stop; take away one that waits, or that has been asked before."""
        remote = self._jobs.get(job)
        if remote is None:
            return
        if number == HARD:
            self._engine.cancel(remote.handle)
        elif not remote.output.exists():
            self._engine.cancel(remote.handle)
            self._taken_out.append(job)
        else:
            remote.stop.touch()

    def events(self, timeout_s: float) -> list[dict[str, Any]]:
        """What has happened since the last look."""
        wait = self._looked + self._engine.poll_s - time.monotonic()
        if wait > 0:
            time.sleep(min(wait, timeout_s))
            if wait > timeout_s:
                return []
        self._looked = time.monotonic()
        found: list[dict[str, Any]] = []
        for number, remote in self._jobs.items():
            if not remote.began and remote.output.exists():
                remote.began = True
                found.append({"started": number})
        for number in self._taken_out:
            self._engine.forget(self._jobs.pop(number).handle)
            found.append({"ended": number, "code": -signal.SIGINT})
        self._taken_out.clear()
        numbers = list(self._jobs)
        for number, end in zip(numbers, self._engine.ended([self._jobs[n].handle for n in numbers]), strict=True):
            if end is not None:
                remote = self._jobs.pop(number)
                self._engine.forget(remote.handle)
                remote.stop.unlink(missing_ok=True)
                said = {"kind": end.kind, "message": end.message} if end.kind else {}
                found.append({"ended": number, "code": end.code, **said})
        return found

    def close(self) -> None:
        """End what still runs."""
        for remote in self._jobs.values():
            self._engine.cancel(remote.handle)
        self._jobs.clear()
        self._engine.close()


class RemotePool(JobPool):
    """Jobs in, outcomes out, on a cluster; how many run at a time is the cluster's matter unless ``n_jobs`` says.

    Args:
        settings: how jobs are run.
        engine: the cluster's software.
        hardware: of the machines that run them; every job decides by it, as the sweep did.
    """

    def __init__(self, settings: PoolSettings, engine: Engine, hardware: Hardware) -> None:
        self._engine = engine
        self._remote = RemoteWorkers(engine, settings.grace_s)
        self._hardware = hardware
        super().__init__(settings, self._remote)
        if engine.outlives:
            self.interrupted_by = (signal.SIGTERM,)

    @property
    def default_jobs(self) -> int:
        """All of them."""
        return 100_000

    def _gpu_names(self) -> tuple[str, ...]:
        return ()

    def _begin(self, job: Job, output: Path, gpus: tuple[str, ...]) -> None:
        variables = travelling(job_environment()) | {ASSUMED_VARIABLE: hardware_text(self._hardware)}
        try:
            self._remote.queue(job, output, {**variables, **self._engine.variables})
        except BaseException:
            self.running.pop(job.number)  # There is nothing to wait for.
            raise


def node_hardware(engine: Engine, study: Path) -> Hardware:
    """What the machines have that will run the jobs; asked once for a study and the same resources.

    Args:
        engine: the cluster's software.
        study: its folder.
    """
    folder = study / OUTPUT_FOLDER
    path, key = folder / NODES_FILE, digest(dict(engine.resources))[:12]
    known = read_note(path)
    if key not in known:
        known[key] = hardware_text(engine.probe(folder))
        write_json(path, known)
    return hardware_from(known[key])
