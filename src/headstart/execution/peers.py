"""Processes of a distributed run of which one ends too early: the others end as well, and one of them says which.

Left to Lightning, the first process is killed within five seconds after one that it started, mostly before it could say
anything. There is no public way to watch them: its launcher is subclassed, and put where its own was. Sources:
``lightning_fabric.strategies.launchers.subprocess_script``, gloo's ``transport/tcp/pair.cc``.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from headstart.runs.ranks import LostRankError
from headstart.system.interpreter import INTERRUPTED

NOTICE_S = 5.0
"""How long after the end of one process another may take to hear of it from its libraries."""

FOLLOWED = 75
"""Exit code of a process that ended only because another one had: the system's for "try again"."""

_POLL_S = 0.2
# What gloo, NCCL and torch's store say when the other side of a connection is gone.
_WORDS = (
    "gloo/transport",
    "remote process exited",
    "NCCL communicator was aborted",
    "Connection was likely closed",
    "Connection closed by",
    "Connection reset by",
)
_PARENT = os.getppid()


class WatchfulLauncher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine as Lightning's does; when one ends too early, it says so.

    Attributes:
        apart: set while this process waits for no other.
    """

    def __init__(self, launcher: _SubprocessScriptLauncher) -> None:
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self.apart = threading.Event()
        self.apart.set()

    def launch(self, function: Callable[..., Any], *args: Any, trainer: pl.Trainer | None = None, **kwargs: Any) -> Any:
        """Call the function; before the first time, start the other processes."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=self._watch, daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)

    def lost(self) -> str | None:
        """Which of the processes that it started ended too early, and how; None while none has."""
        codes = [(child.poll(), place) for place, child in enumerate(self.procs, 1)]
        # One that was killed (a code below zero) is the cause of those that gave up.
        ended = sorted((code, place) for code, place in codes if code not in (None, 0, FOLLOWED))
        if not ended:
            return None
        code, place = ended[0]
        return f"process {self.cluster_environment.node_rank() * self.num_processes + place} of this run {_how(code)}"

    def _watch(self) -> None:
        while (lost := self.lost()) is None:
            if all(child.returncode is not None for child in self.procs):
                return
            time.sleep(_POLL_S)
        while self.apart.wait(NOTICE_S):
            time.sleep(_POLL_S)
        # The main thread is in a library, waiting for one that does not come any more.
        self.kill(signal.SIGKILL)
        os.write(2, f"\nerror: {lost}; the same command goes on with the run\n".encode())
        os._exit(1)


def watch_peers(trainer: pl.Trainer) -> None:
    """Have the processes watched that a trainer starts; nothing happens where it starts none."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = WatchfulLauncher(launcher)


@contextmanager
def among_peers(trainer: pl.Trainer) -> Iterator[None]:
    """Within the block the processes of a run wait for each other: where one ends too early, all do.

    Raises:
        LostRankError: another process is gone, and it is for this one to say so.
        SystemExit: another process is gone, and the one that started this one says so (:data:`FOLLOWED`).
    """
    launcher = trainer.strategy.launcher
    watchful = launcher if isinstance(launcher, WatchfulLauncher) else None
    if watchful is not None:
        watchful.apart.clear()
    try:
        yield
    except Exception as error:
        lost = any(words in str(error) for words in _WORDS)
        reason = _why(trainer, watchful) if lost else ""
        if watchful is not None:
            watchful.kill(signal.SIGKILL)  # What they say of this one's end would hide why it ends.
        if lost:
            raise LostRankError(reason) from error
        raise
    finally:
        if watchful is not None:
            watchful.apart.set()


def _why(trainer: pl.Trainer, launcher: WatchfulLauncher | None) -> str:
    """Which process is gone. It is waited for: its connections end before it does."""
    limit, started = time.monotonic() + NOTICE_S, trainer.local_rank > 0
    while time.monotonic() < limit:
        if launcher is not None and (lost := launcher.lost()):
            return lost
        if started and os.getppid() != _PARENT:
            return f"process {trainer.global_rank - trainer.local_rank} of this run has ended"
        time.sleep(_POLL_S)
    if started:
        raise SystemExit(FOLLOWED)
    return f"another process of this run has ended, or process {trainer.global_rank} cannot reach it any more"


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL: by somebody, or by the system for want of memory)"
    if code < 0:
        return f"was ended by signal {-code} ({signal.strsignal(-code)})"
    return "was interrupted" if code == INTERRUPTED else f"ended with exit code {code}; what it said stands above"
