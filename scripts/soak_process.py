"""Commands of Headstart in forks of this process: started, struck, waited for, and judged by how they end."""

import contextlib
import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LIMIT_S = 30.0
MARK = "HEADSTART_SOAK"
TICKS = os.sysconf("SC_CLK_TCK")
#: A training of three CPU seconds.
TINY = (
    "train",
    "backbone=small_cnn",
    "backbone.weights=none",
    "datamodule.shots=3",
    "datamodule.val_fraction=0.05",
    "datamodule.test_fraction=0.05",
    "datamodule.image_size=32",
    "datamodule.batch_size=10",
    "datamodule.num_workers=0",
    "trainer=cpu",
    "trainer.precision=32-true",
    "callbacks.progress=none",
    "callbacks.plots=false",
    "paths.cache_dir=cache",
)
_CHANGES = frozenset(f"os.{name}" for name in ("rename", "remove", "mkdir", "rmdir", "link", "symlink", "truncate"))


@dataclass
class Tally:
    """Tries and how they ended, a line each in a file; a bad one is told at once."""

    path: Path

    def add(self, fault: str, outcome: str, note: str) -> None:
        """Count a try."""
        with self.path.open("a") as file:
            file.write(json.dumps([fault, outcome]) + "\n")
        if outcome not in ("same", "told"):
            print(f"{fault}: {outcome}: {note}", flush=True)


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (None: it did not), all that it printed, and the seconds that it took."""

    code: int | None
    text: str
    cpu_s: float = 0.0
    wall_s: float = 0.0

    @property
    def outcome(self) -> str:
        """``same`` (it ended as if nothing were wrong), ``told``, ``hang``, ``traceback``, or something else."""
        if self.code is None:
            return "hang"
        if "Traceback (most recent call last)" in self.text:
            return "traceback"
        if self.code == 0:
            return "same"
        return "told" if "error:" in self.text else "without a word"


@dataclass(frozen=True)
class Strike:
    """A signal to a command: after so much of its own CPU time, of any time, or just before one of its writes."""

    number: signal.Signals
    cpu_s: float | None = None
    wall_s: float | None = None
    write: int | None = None


@dataclass
class Process:
    """A command that runs.

    Attributes:
        pid: its process, which leads a session of its own.
        output: file of what it prints.
        strike: what will hit it.
    """

    pid: int
    output: Path
    strike: Strike | None
    _shared: mmap.mmap
    _queued: dict[int, float] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    @property
    def writes(self) -> int:
        """How often it has opened a file to write, renamed, removed or linked one, or made a folder."""
        return int(struct.unpack("q", self._shared[:8])[0])

    @property
    def struck(self) -> bool:
        """Whether the strike came before the end."""
        return bool(self._shared[8])

    def wait(self, limit_s: float = LIMIT_S) -> Done:
        """To its end, or to the limit; it and all that it started are gone then."""
        ended, status, code, seen = 0, 0, None, time.monotonic()
        while True:
            ended, status, usage = os.wait4(self.pid, os.WNOHANG)
            now = time.monotonic()
            if now - seen > 1:  # this process itself did not run: the machine paused, or both were stopped
                self._began += now - seen
            seen, elapsed = now, now - self._began
            if ended:
                code = os.waitstatus_to_exitcode(status)
                break
            spent, queued = self._times()
            if elapsed - queued > limit_s:
                break
            if self.strike and not self.struck and self._due(spent, elapsed):
                self._shared[8] = 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, self.strike.number)
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            usage = os.wait4(self.pid, 0)[2]
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        self.output.unlink(missing_ok=True)
        return Done(code, text, usage.ru_utime + usage.ru_stime, elapsed)

    def _due(self, spent: float, elapsed: float) -> bool:
        assert self.strike is not None
        at_cpu, at_wall = self.strike.cpu_s, self.strike.wall_s
        return (at_cpu is not None and spent >= at_cpu) or (at_wall is not None and elapsed >= at_wall)

    def _times(self) -> tuple[float, float]:
        """Seconds on a processor, and seconds that its threads waited for one: a busy machine makes no hang."""
        spent = 0.0
        with contextlib.suppress(OSError, IndexError):  # it may end meanwhile
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            spent = (int(fields[11]) + int(fields[12])) / TICKS
            for thread in Path(f"/proc/{self.pid}/task").iterdir():
                self._queued[int(thread.name)] = int((thread / "schedstat").read_text().split()[1]) / 1e9
        return spent, sum(self._queued.values())


def start(arguments: Sequence[str], folder: Path, strike: Strike | None = None) -> Process:
    """Fork a ``headstart`` command that works in ``folder``."""
    output, shared = folder / f".output-{time.monotonic_ns()}", mmap.mmap(-1, 9)
    pid = os.fork()
    if pid:
        return Process(pid, output, strike, shared)
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ[MARK] = str(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from headstart.commands.cli import main

        sys.argv = ["headstart", *arguments]
        _count_writes(shared, strike)
        code = main(list(arguments))
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def command(folder: Path, *arguments: str, limit_s: float = LIMIT_S) -> Done:
    """Run a command to its end."""
    return start(arguments, folder).wait(limit_s)


def left_behind(folder: Path, patience_s: float = 10.0) -> list[int]:
    """Processes that commands in ``folder`` started and that are still there after a while; they are ended.

    Args:
        folder: where the commands worked.
        patience_s: seconds on a machine with a processor for each that wants one; on a busier one more.
    """
    patience_s *= max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    mark, until = f"{MARK}={folder}".encode(), time.monotonic() + patience_s
    while found := [pid for pid in _processes() if mark in _environment(pid)]:
        if time.monotonic() > until:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return found
        time.sleep(0.1)
    return []


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _count_writes(shared: mmap.mmap, strike: Strike | None) -> None:
    """In the child: count what changes files, and strike just before the one that was chosen."""
    own = os.getpid()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR) or arguments[0] == os.devnull:
                return
        elif event not in _CHANGES:
            return
        if os.getpid() != own:
            return
        count = struct.unpack("q", shared[:8])[0] + 1
        shared[:8] = struct.pack("q", count)
        if strike is not None and strike.write == count:
            shared[8] = 1
            os.kill(own, strike.number)

    sys.addaudithook(hook)
