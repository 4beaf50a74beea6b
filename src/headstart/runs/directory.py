"""The run directory: where one training keeps everything, named by what ran and not by when.

::

    outputs/<study>/<readable-key>-<fingerprint8>/
        config.yaml  result.json  metrics.csv  audit.json  log.txt  attempts.json
        checkpoints/{last,best}.ckpt  predictions_{val,test}.npz  plots/

Everything inside refers to other files by name only, so that a run directory can be moved to another machine.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from headstart.errors import RunError
from headstart.runs.result import AUDIT_FILE, CONFIG_FILE, METRICS_FILE, RESULT_FILE, Cost, Result, read_result
from headstart.system.atomic import copy_file, remove_leftovers, write_json
from headstart.system.locks import FileLock, is_held
from headstart.system.regular import check_regular

State = Literal["new", "partial", "done", "failed"]
Action = Literal["train", "resume", "return"]
Rerun = Literal["failed", "all", "none"]

LOCK_FILE = ".lock"
ATTEMPTS_FILE = "attempts.json"
STUDY_NAME = r"[\w=+,@-][\w=+,@ .-]{0,199}"

_log = logging.getLogger(__name__)


class _Inside:
    """A file or folder of a run directory."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: RunDirectory, _: type[RunDirectory]) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunDirectory:
    """One training's directory. It holds no state of its own: what it says is read from disk each time.

    Attributes:
        path: the directory.
        fingerprint: digest of the choices that change the result.
        rerun: which earlier outcomes are trained again: ``failed`` ones, ``all``, or ``none``.
    """

    path: Path
    fingerprint: str
    rerun: Rerun = "failed"

    checkpoints = _Inside("checkpoints")
    last_checkpoint = _Inside("checkpoints/last.ckpt")  # where a partial run goes on from
    best_checkpoint = _Inside("checkpoints/best.ckpt")  # on validation
    config_file = _Inside(CONFIG_FILE)  # the resolved choices
    metrics_file = _Inside(METRICS_FILE)  # one row per epoch
    audit_file = _Inside(AUDIT_FILE)  # what learned and what stayed frozen, with the proof
    log_file = _Inside("log.txt")  # everything that was logged, tracebacks included
    plots = _Inside("plots")
    attempts_file = _Inside(ATTEMPTS_FILE)  # what each process that worked on the run spent

    @classmethod
    def open(
        cls, output_dir: str | Path, study: str, key: str, fingerprint: str, *, rerun: Rerun = "failed"
    ) -> RunDirectory:
        """Make or open the directory of the run that ``fingerprint`` stands for.

        Args:
            output_dir: holds all studies.
            study: one folder's name (:data:`STUDY_NAME`).
            key: readable summary of the choices, safe in a file name.
            fingerprint: its first 8 characters end the directory's name.
            rerun: which earlier outcomes are trained again.

        Raises:
            RunError: there can be no such folder, or it is another fingerprint's with the same 8 characters.
        """
        run = cls(Path(output_dir) / study / f"{key}-{fingerprint[:8]}", fingerprint, rerun)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"paths.output_dir={output_dir} cannot be written to ({error}); give another folder"
            ) from None
        other = run._recorded_fingerprint()
        if other not in (None, fingerprint):
            raise RunError(
                f"{run.path} holds a run with other choices (fingerprint {other}, asked for {fingerprint}); "
                "give this one another `name`, or delete that directory."
            )
        return run

    @property
    def state(self) -> State:
        """What is there: a result, a checkpoint to go on from, or nothing."""
        if (self.path / RESULT_FILE).exists():
            return read_result(self.path).status
        return "partial" if self.last_checkpoint.exists() else "new"

    @property
    def action(self) -> Action:
        """What asking for this run means now; decide it while holding :meth:`lock`.

        A finished run is returned and a partial one resumed, and so is one that the machine ended (a full disk, no
        memory); another failed one is trained again from the start, because its checkpoints may be what failed.
        ``rerun`` changes all three.
        """
        state = self.state
        if state == "failed" and self.rerun == "failed" and self.result().details.get("resumable"):
            state = "partial" if self.last_checkpoint.exists() else "new"
        if state == "new" or (self.rerun == "all") or (state == "failed" and self.rerun == "failed"):
            return "train"
        return "resume" if state == "partial" else "return"

    def result(self) -> Result:
        """The stored result.

        Raises:
            RunError: there is none, or it cannot be read.
        """
        return read_result(self.path)

    @contextmanager
    def lock(self, *, wait: bool = True, owner: bool = True) -> Iterator[None]:
        """Hold this run: one process at a time, on one machine or on a shared file system that has flock.

        The lock goes with the process that held it, however it ends.

        Args:
            wait: wait for another process, or fail at once.
            owner: False for the helper processes of a distributed run, whose first process holds the lock.

        Raises:
            RunError: ``wait`` is False and another process holds it, or there can be no lock file.
        """
        if not owner:
            yield
            return
        lock = FileLock(self.path / LOCK_FILE)
        try:
            if not lock.acquire(wait=False):
                if not wait:
                    raise RunError(f"{self.path} is in use by {lock.holder}; wait for it to end.")
                _log.info("Waiting for %s, which runs %s", lock.holder, self.path)
                lock.acquire()
        except OSError as error:
            raise RunError(f"{lock.path} cannot be locked ({error}); it must be a file that you may write.") from error
        try:
            yield
        finally:
            lock.release()

    @property
    def in_use(self) -> bool:
        """Whether a process holds the lock now."""
        return is_held(self.path / LOCK_FILE)

    def clear(self) -> None:
        """Remove everything that an earlier attempt left, the lock aside. The result goes first."""
        (self.path / RESULT_FILE).unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.name == LOCK_FILE:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def continue_from(self, earlier: RunDirectory) -> None:
        """Make this new run a partial one that goes on where a shorter run of the same choices ended (``extend=true``).

        Raises:
            RunError: ``earlier`` kept no last checkpoint.
        """
        if not earlier.last_checkpoint.exists():
            raise RunError(f"{earlier.path} has no {earlier.last_checkpoint.name} to go on from; use extend=false.")
        write_json(self.attempts_file, {"fingerprint": self.fingerprint, "attempts": earlier.attempts()})
        if earlier.metrics_file.exists():
            copy_file(earlier.metrics_file, self.metrics_file)
        kept = [path for path in earlier.checkpoints.iterdir() if path.is_file() and not path.name.endswith(".tmp")]
        others = [path for path in kept if path != earlier.last_checkpoint]
        for path in [*others, earlier.last_checkpoint]:  # the last one makes this run partial, so it comes last
            copy_file(path, self.checkpoints / path.name)

    def attempt(self) -> Attempt:
        """Begin an attempt, holding :meth:`lock`: from now on its cost can be recorded and survives the process.

        What earlier attempts left half-written is removed.
        """
        for folder in (self.path, self.checkpoints, self.plots):
            remove_leftovers(folder)
        return Attempt(self.attempts_file, self.fingerprint, earlier=tuple(self.attempts()))

    def attempts(self) -> list[dict[str, Any]]:
        """What earlier processes recorded, oldest first."""
        return list(_read_attempts(self.attempts_file).get("attempts", []))

    def cost(self) -> Cost:
        """What all recorded attempts cost together."""
        return _sum_of(self.attempts())

    def predictions_file(self, split: str) -> Path:
        """Probabilities for every sample of ``split``."""
        return self.path / f"predictions_{split}.npz"

    def _recorded_fingerprint(self) -> str | None:
        if (self.path / RESULT_FILE).exists():
            return read_result(self.path).fingerprint
        return _read_attempts(self.attempts_file).get("fingerprint")


class Attempt:
    """One process's share of a run's cost, kept in ``attempts.json`` and rewritten at every epoch's end.

    After a crash the next attempt finds what was spent up to the last record; :attr:`total` adds all attempts up.
    """

    def __init__(self, path: Path, fingerprint: str, *, earlier: tuple[dict[str, Any], ...] = ()) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._earlier = earlier
        self._started = _now()
        self.began = time.perf_counter()
        self.cost = Cost()
        self._write(ended=False)

    @property
    def earlier(self) -> Cost:
        """What the attempts before this one cost."""
        return _sum_of(self._earlier)

    @property
    def total(self) -> Cost:
        """All attempts together, this one included."""
        return self.earlier.plus(self.cost)

    def record(self, *, ended: bool = False, **cost: Any) -> None:
        """Set parts of this attempt's own cost (names of :class:`Cost`) to their values so far, and store them."""
        self.cost = replace(self.cost, **cost)
        self._write(ended=ended)

    def _write(self, *, ended: bool) -> None:
        mine = {
            "started": self._started,
            "recorded": _now(),
            "ended": ended,
            "host": socket.gethostname(),
            "cost": asdict(self.cost),
        }
        write_json(self._path, {"fingerprint": self._fingerprint, "attempts": [*self._earlier, mine]})


def is_run(path: Path) -> bool:
    """Whether a folder is a run's directory, finished or not."""
    return any((path / name).exists() for name in (RESULT_FILE, ATTEMPTS_FILE))


def find_runs(output_dir: str | Path) -> list[Path]:
    """All run directories below ``output_dir``, sorted; a run directory itself counts as one."""
    root = Path(output_dir)
    if is_run(root):
        return [root]
    found = []
    for folder, names, _ in os.walk(root):
        names.sort()
        for name in list(names):
            path = Path(folder) / name
            if is_run(path):
                found.append(path)
                names.remove(name)
    return sorted(found)


def _read_attempts(path: Path) -> dict[str, Any]:
    try:
        check_regular(path)
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}); delete the run directory and run again.") from None
    attempts = values.get("attempts", []) if isinstance(values, dict) else None
    if not isinstance(attempts, list) or not all(
        isinstance(a, dict) and isinstance(a.get("cost"), dict) for a in attempts
    ):
        raise RunError(f"{path} is not a journal of attempts; delete the run directory and run again.")
    return values


def _sum_of(attempts: Iterable[Mapping[str, Any]]) -> Cost:
    total = Cost()
    for attempt in attempts:
        cost = Cost.from_dict(attempt["cost"])
        # One that was cut off may have recorded its training only.
        total = total.plus(replace(cost, total_seconds=max(cost.total_seconds, cost.fit_seconds)))
    return total


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
