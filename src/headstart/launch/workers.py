"""The sweep's side of the server: start jobs, signal them, hear of their ends."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from headstart.errors import ConfigError, RunError

# What an outer launcher or Lightning left must not make a job take itself for one rank of many.
FOREIGN = ("LOCAL_RANK", "RANK", "GLOBAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "NODE_RANK")
_FOREIGN_PREFIXES = ("MASTER_", "PL_GLOBAL_SEED", "TORCHELASTIC_", "SLURM_NTASKS", "SLURM_PROCID", "HEADSTART_ACTION")


class ServerLostError(RunError):
    """The server is gone, and its jobs with it."""


class Workers:
    """A server process, started with the first job.

    Args:
        entry: ``module:function``, what a job's process does with its arguments; it returns the exit code.
    """

    def __init__(self, entry: str) -> None:
        if not hasattr(os, "fork"):
            raise ConfigError("hydra/launcher=process needs Linux or macOS; use hydra/launcher=basic here")
        self._entry = entry
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._used = False

    def warm(self) -> None:
        """Start the server now, so that it has imported everything when the first job comes."""
        self._send({"preload": self._entry})

    def start(
        self,
        job: int,
        arguments: Sequence[str],
        *,
        fork: bool,
        output: Path,
        environment: Mapping[str, str],
        threads: int | None = None,
        entry: str | None = None,
    ) -> None:
        """Start a job.

        Args:
            job: its number, for the events.
            arguments: of its command.
            fork: from the imports that are there; else a fresh process, which can start others like itself.
            output: file that gets what it prints.
            environment: the whole of it.
            threads: of torch, at most.
            entry: of this job, where it is another one.
        """
        self._used = True
        request = {
            "start": job,
            "arguments": list(arguments),
            "fork": fork,
            "output": str(output),
            "environment": dict(environment),
            "folder": str(Path.cwd()),
            "threads": threads,
            "entry": entry or self._entry,
        }
        self._send(request)

    def signal(self, job: int, number: int) -> None:
        """Signal a job and all that it started; nothing happens if it has ended."""
        if self._connection is not None:
            self._send({"signal": number, "job": job})

    def events(self, timeout_s: float) -> list[dict[str, Any]]:
        """What the server says within the time: jobs that started or ended.

        Raises:
            ServerLostError: it has gone.
        """
        found: list[dict[str, Any]] = []
        try:
            while self._connection is not None and self._connection.poll(0 if found else timeout_s):
                found.append(self._connection.recv())
        except (EOFError, OSError):
            if not found:
                raise self._lost() from None
        return found

    def close(self) -> None:
        """End the server; it kills what still runs."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._server is not None:
            if not self._used:
                self._server.kill()
            try:
                self._server.wait(timeout=5)
            except subprocess.TimeoutExpired:  # It still imports, so there is no job yet.
                self._server.kill()
                self._server.wait()
            self._server = None

    def _send(self, request: dict[str, Any]) -> None:
        try:
            (self._connection or self._open()).send(request)
        except ConnectionError:
            raise self._lost() from None

    def _open(self) -> Connection:
        self._connection, theirs = Pipe()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "headstart.launch.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=job_environment(),
                start_new_session=True,
            )
        return self._connection

    def _lost(self) -> ServerLostError:
        code = None
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._server.wait(timeout=5)
        how = "" if code is None else f" (killed by signal {-code})" if code < 0 else f" (exit code {code})"
        self.close()
        return ServerLostError(f"the process that starts the jobs has ended{how}")


def is_foreign(name: str) -> bool:
    """Whether a variable numbers one process of many, or is a decision of the one that left it."""
    return name in FOREIGN or name.startswith(_FOREIGN_PREFIXES)


def job_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment as a single command of the user's would have it, with some changes."""
    environment = {name: value for name, value in os.environ.items() if not is_foreign(name)}
    # The folder of the script, or of an interactive session, where a user's own components may be.
    folders = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    first = str(Path(sys.path[0]).absolute()) if sys.path else ""
    if Path(first).is_dir() and first not in folders:
        environment["PYTHONPATH"] = os.pathsep.join([first, *folders])
    # ``python -m`` would put the working folder first too, where a user's random.py may be.
    return environment | {"PYTHONSAFEPATH": "1"} | dict(changes or {})


SOFT, HARD = signal.SIGINT, signal.SIGKILL
