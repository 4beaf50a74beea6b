"""Locks between processes that end with the process that holds them, however it ends."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock: there, two processes are not kept apart.
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)


class FileLock:
    """One lock file; several readers or one writer at a time.

    On a file system without locks every attempt succeeds: what is written under a temporary name and renamed stays
    whole even then, it may only be made twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Take the lock; without ``wait`` returns False where another process holds it.

        Raises:
            OSError: the lock file cannot be made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is not None:
            flag = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
            try:
                fcntl.flock(descriptor, flag)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError as error:
                _log.debug("%s: this file system has no locks (%s)", self.path, error)
        self.release()
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back; does nothing where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


@contextmanager
def holding(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock for a block; yields whether it was to be had."""
    lock = FileLock(path)
    held = lock.acquire(shared=shared, wait=wait)
    try:
        yield held
    finally:
        lock.release()
