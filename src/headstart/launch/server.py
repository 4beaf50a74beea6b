"""A process that starts jobs: it imports what they need once, then each job is a fork of it.

``python -m headstart.launch.server FD`` takes requests from the :mod:`multiprocessing` connection FD. It uses no CUDA
and no threads of its own, which a fork would not survive. It lives in a session of its own, and so does each job: when
the sweep goes away, however it ends, the connection closes and the server kills every job with all that it started.

Requests: ``{"start": id, "entry": "module:function", "arguments": [...], "fork": bool, "environment": {...},
"folder": path, "output": path, "threads": n or None}``, ``{"preload": "module:function"}`` and
``{"signal": number, "job": id}``. Answers: ``{"ready": seconds}`` after the imports, ``{"started": id, "pid": n}`` and
``{"ended": id, "code": n}``, negative for a signal.
"""

# multiprocessing's forkserver with the same imports starts a job no sooner (medians of 20 on a busy machine: 162 ms
# there, 144 ms here) and does not replace this, as CPython 3.11 has it: each child imports the caller's __main__ again,
# so an unguarded script that sweeps would sweep in every job; children hold the pipe that tells the server that the
# sweep lives, so after a SIGKILL of the sweep it and all jobs go on; start() waits for the imports; and children end by
# os._exit, without atexit.

import atexit
import contextlib
import ctypes
import importlib
import os
import selectors
import signal
import sys
import tempfile
import time
import traceback
import warnings
import weakref
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from headstart.system.interpreter import collector_at_rest, interrupt, whole_process

PRELOAD = (
    "headstart.execution.train",
    "headstart.execution.execute",
    "headstart.backbones",
    "headstart.heads",
    "headstart.data",
    "headstart.strategies",
    "timm",
    "timm.layers",
    "sklearn.datasets",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
)

_PR_SET_PDEATHSIG = 1


class Server:
    """Starts jobs, passes on signals, reports exits.

    Args:
        sweep: the connection to it, whose end is the sweep's end.
    """

    def __init__(self, sweep: Connection) -> None:
        self._sweep = sweep
        self._jobs: dict[int, int] = {}
        self._loaded = False
        self._wake, self._woken = os.pipe()

    def run(self) -> dict[str, Any] | None:
        """Serve until the sweep has gone. In a forked job it returns the request to carry out; else None."""
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._sweep, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == self._wake:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wake, 4096)
                        continue
                    try:
                        request = self._sweep.recv()
                    except (EOFError, OSError):  # also in the middle of a request
                        for pid in self._jobs:
                            _signal_group(pid, signal.SIGKILL)
                        return None
                    if self._handle(request):
                        selector.close()
                        return request
                self._reap()

    def _handle(self, request: dict[str, Any]) -> bool:
        """Returns True in the forked job only."""
        if "signal" in request:
            pid = next((pid for pid, job in self._jobs.items() if job == request["job"]), None)
            if pid is not None:
                _signal_group(pid, request["signal"])
            return False
        if "preload" in request or request["fork"]:
            self._load(request.get("preload") or request["entry"])
        if "preload" in request:
            return False
        with warnings.catch_warnings():
            # Python warns of the idle threads of linear algebra libraries, which stop themselves before a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            self._become(request)
            return True
        self._jobs[pid] = request["start"]
        self._send({"started": request["start"], "pid": pid})
        return False

    def _load(self, entry: str) -> None:
        if not self._loaded:
            started = time.perf_counter()
            # While it imports it hears nothing, and has no jobs yet that it would have to end first.
            _on_death_of_parent(signal.SIGKILL)
            preload(entry.partition(":")[0])
            _on_death_of_parent(0)
            self._loaded = True
            self._send({"ready": round(time.perf_counter() - started, 3)})

    def _become(self, request: dict[str, Any]) -> None:
        """In the forked job: nothing of the server is left, output goes to the job's file."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, interrupt)
            self._sweep.close()
            os.close(self._wake)
            os.close(self._woken)
            os.setsid()
            die_with_parent()
            _redirect(request["output"])
            os.chdir(request["folder"])
            os.environ.clear()
            os.environ.update(request["environment"])
            keep_temporary_folders()
            if not request["fork"]:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                command = [sys.executable, "-m", "headstart", "train", *request["arguments"]]
                os.execve(sys.executable, command, os.environ)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def _reap(self) -> None:
        while self._jobs:
            # The process stays a zombie until its group is gone, so that nobody else can get its number.
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return
            if found.si_pid in self._jobs:
                _signal_group(found.si_pid, signal.SIGKILL)
            _, status = os.waitpid(found.si_pid, 0)
            job = self._jobs.pop(found.si_pid, None)
            if job is not None:
                self._send({"ended": job, "code": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # The sweep has gone; reading will say so.
            self._sweep.send(message)


def keep_temporary_folders() -> None:
    """In the forked job: what imported packages made for themselves is the server's to remove, at its own end.

    The first job to end would take wandb's folder for tables and pictures from all the others.
    """
    # Private, but finalizers have no public list, and which ones packages made is theirs.
    for inherited in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        inherited.atexit = False
        owner = (inherited.peek() or (None,))[0]
        if isinstance(owner, tempfile.TemporaryDirectory):
            atexit.unregister(owner.cleanup)


def preload(module: str) -> None:
    """Import what jobs need, and compose once, which fills the caches of Hydra's parser.

    Args:
        module: beside :data:`PRELOAD`.
    """
    # Whether there is a GPU must be asked without initialising CUDA.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # What is not collected is not written to either: its pages stay shared with the jobs.
    with collector_at_rest(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in (module, *PRELOAD):
            importlib.import_module(name)
        from headstart.config import compose

        compose(["seed=1"])


def carry_out(request: dict[str, Any]) -> int:
    """In the forked job: what the request names as its entry, with its arguments. Returns the exit code."""
    import torch

    if request["threads"]:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), request["threads"])))
    # As ``python -m headstart train`` has it: Hydra and Lightning look at the process's own command line.
    sys.argv = [str(Path(__file__).parents[1] / "__main__.py"), "train", *request["arguments"]]
    module, _, function = request["entry"].partition(":")
    code: int = getattr(importlib.import_module(module), function)(request["arguments"])
    return code


def _redirect(path: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)


def die_with_parent() -> None:
    """Where Linux offers it: the job goes with the server even if the server is killed itself."""
    _on_death_of_parent(signal.SIGKILL)
    if sys.platform == "linux" and os.getppid() == 1:
        os._exit(1)


def _on_death_of_parent(number: int) -> None:
    """Which signal this process then gets, where Linux offers it; 0: none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _signal_group(pid: int, number: int) -> None:
    """Signal a job and every process that it started."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        with contextlib.suppress(ProcessLookupError):  # Not in its own session yet.
            os.kill(pid, number)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Only the wake-up counts."""


def main() -> int:
    """The server; a forked job leaves through here too, with its own exit code."""
    request = Server(Connection(int(sys.argv[1]))).run()
    return 0 if request is None else carry_out(request)


if __name__ == "__main__":
    whole_process("headstart.launch.server:main")
