"""Locks between processes that end with the process that holds them, however it ends."""

import contextlib
import functools
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock: there, two processes are not kept apart.
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

# A lock file's text is replaced, so it must not be another file under a second name.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class FileLock:
    """One lock file; several readers or one writer at a time, whose process the file then names.

    On a file system without locks every attempt succeeds, after a warning: what is written under a temporary name and
    renamed stays whole even then, it may only be made twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._signed = False

    def acquire(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Take the lock; without ``wait`` returns False where another process holds it.

        Raises:
            OSError: the lock file cannot be made, or is a link.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        if not _flock(descriptor, self.path, shared=shared, wait=wait):
            os.close(descriptor)
            return False
        self.release()
        self._descriptor, self._signed = descriptor, not shared
        if self._signed:
            self._write(f"process {os.getpid()} on {socket.gethostname()}")
        return True

    def release(self) -> None:
        """Give the lock back; does nothing where it is not held."""
        if self._signed:
            self._write("")
        self._close()

    @property
    def holder(self) -> str:
        """The process that holds the lock for itself, in words."""
        with contextlib.suppress(OSError):
            return self.path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        return "another process"

    def _write(self, text: str) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(OSError):  # The text only informs; the lock is held on a full disk too.
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, text.encode())

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._signed = None, False

    def __del__(self) -> None:
        # Without the text: in a forked process this is a copy of a lock that its parent still holds.
        self._close()


@contextmanager
def holding(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock for a block; yields whether it was to be had."""
    lock = FileLock(path)
    held = lock.acquire(shared=shared, wait=wait)
    try:
        yield held
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock for itself now; makes and changes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_LINK)
    except OSError:
        return False
    try:
        return not _flock(descriptor, path, shared=True, wait=False)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, path: Path, *, shared: bool, wait: bool) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        _warn_of_no_locks(path.parent, str(error))
    return True


@functools.cache
def _warn_of_no_locks(folder: Path, reason: str) -> None:
    _log.warning("%s: this file system has no locks (%s); do not start the same run twice at a time", folder, reason)
