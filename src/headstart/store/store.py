"""A content-addressed store of large arrays on disk. It knows nothing of images or networks, and needs no torch.

::

    <root>/<key>/meta.json  00000-00000.bin  ...  used
    <root>/.locks/<key>.build  <key>.use
    <root>/.<key>.<process>.tmp/        being built

An entry appears complete or not at all: it is written under a temporary name, flushed to disk, and renamed. It is
verified when it is opened; what is torn or altered is removed, so that it is built again.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headstart.errors import CacheError
from headstart.store.building import Build, space_for
from headstart.store.entry import META, USED, Entry, Meta
from headstart.system.locks import FileLock, holding

# Up to this size an entry is read in full when it is opened; above it, only where its time stamps have changed.
VERIFIED_BYTES = 2**30
_STALE_S = 2 * 24 * 3600

_log = logging.getLogger(__name__)


class Store:
    """The entries below one folder.

    Args:
        root: made when the first entry is.
        max_bytes: above this, the entries that were not used for longest are removed; None: no limit.
    """

    def __init__(self, root: str | Path, *, max_bytes: int | None = None) -> None:
        self.root, self.max_bytes = Path(root), max_bytes

    def open(self, key: str, *, verify: bool = True) -> Entry | None:
        """The entry, verified, or None where there is none that can be trusted.

        Args:
            key: its name.
            verify: compare its content with its digests; False compares the sizes of its files only.
        """
        path = self.root / key
        if not path.is_dir():
            return None
        lock = FileLock(self._lock(key, "use"))
        lock.acquire(shared=True)
        problem = self._problem(path, full=None if verify else False)
        if problem is None:
            with contextlib.suppress(OSError):
                os.utime(path / USED)
            return Entry(path, Meta.read(path / META), lock)
        lock.release()
        if path.is_dir():
            _log.warning("stored activations %s are damaged (%s); they are made again", key[:12], problem)
            self._discard(path)
        return None

    @contextmanager
    def building(self, key: str) -> Iterator[Build | None]:
        """Make an entry, alone: other processes that want it wait here.

        Yields None where another process has made it meanwhile. What is not finished when the block ends is removed.

        Raises:
            CacheError: the folder cannot be written to.
        """
        build = None
        with space_for(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._lock(key, "build"))
            if not lock.acquire(wait=False):
                _log.info("waiting for another process that makes the stored activations %s", key[:12])
                lock.acquire()
        try:
            if not (self.root / key).is_dir():
                self.clean(own=key)
                folder = self.root / f".{key}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
                with space_for(self.root):
                    folder.mkdir()
                build = Build(folder, self.root / key)
            yield build
        finally:
            if build is not None and not build.finished:
                shutil.rmtree(build.folder, ignore_errors=True)
            lock.release()

    def entries(self) -> list[str]:
        """Names of all entries."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    def meta(self, key: str) -> Meta | None:
        """What an entry holds; None where it cannot be read."""
        try:
            return Meta.read(self.root / key / META)
        except CacheError:
            return None

    def last_used(self, key: str) -> float:
        """When an entry was last opened, in seconds since 1970; 0 where that is unknown."""
        try:
            return (self.root / key / USED).stat().st_mtime
        except OSError:
            return 0.0

    def size_bytes(self, key: str) -> int:
        """Size of an entry's files on disk."""
        return _folder_bytes(self.root / key)

    def verify(self, key: str) -> str | None:
        """Read an entry in full; what is wrong with it, or None."""
        return self._problem(self.root / key, full=True)

    def remove(self, key: str) -> bool:
        """Remove an entry; False where another process uses it."""
        with holding(self._lock(key, "use"), wait=False) as free:
            if free:
                self._discard(self.root / key)
            return free

    def evict(self, *, keep: Sequence[str] = ()) -> list[str]:
        """Remove what was not used for longest until the size limit holds; nothing in use, nothing in ``keep``.

        Returns: what was removed.
        """
        if self.max_bytes is None:
            return []
        sizes = {key: self.size_bytes(key) for key in self.entries()}
        total, removed = sum(sizes.values()), []
        for key in sorted(sizes, key=self.last_used):
            if total <= self.max_bytes:
                break
            if key not in keep and self.remove(key):
                total -= sizes[key]
                removed.append(key)
        return removed

    def free_bytes(self) -> int:
        """Space left on the disk."""
        folder = self.root
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def clean(self, own: str | None = None) -> int:
        """Remove what killed processes left of ``own``, whose build lock the caller holds, and of what nobody builds.

        Returns: how many folders.
        """
        leftovers = list(self.root.glob(".*.tmp")) if self.root.is_dir() else []
        removed = 0
        for folder in leftovers:
            key = folder.name[1:].partition(".")[0]
            with contextlib.suppress(OSError):
                if key == own or time.time() - folder.stat().st_mtime > _STALE_S:
                    shutil.rmtree(folder, ignore_errors=True)
                    removed += 1
                    continue
                with holding(self._lock(key, "build"), wait=False) as free:
                    if free:
                        shutil.rmtree(folder, ignore_errors=True)
                        removed += 1
        return removed

    def _problem(self, path: Path, *, full: bool | None) -> str | None:
        """What is wrong with an entry. ``full=None`` reads it where it is small or its time stamps have changed."""
        try:
            meta = Meta.read(path / META)
            if meta.key != path.name:
                return "it was made under another name"
            changed = False
            for shard in meta.shards:
                stat = (path / shard.file).stat()
                if stat.st_size != shard.rows * meta.row_bytes:
                    return f"{shard.file} has {stat.st_size} bytes instead of {shard.rows * meta.row_bytes}"
                changed |= stat.st_mtime_ns != shard.mtime_ns
            if full or (full is None and (changed or meta.size_bytes <= VERIFIED_BYTES)):
                for shard in meta.shards:
                    with (path / shard.file).open("rb") as file:
                        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                            return f"{shard.file} was altered"
        except (OSError, CacheError) as error:
            return str(error)
        return None

    def _discard(self, path: Path) -> None:
        """Take the name away first, so that nobody opens what is being deleted."""
        trash = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        with contextlib.suppress(OSError):
            path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def _lock(self, key: str, kind: str) -> Path:
        return self.root / ".locks" / f"{key}.{kind}"


def _folder_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        total = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return total
