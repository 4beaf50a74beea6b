"""Digests of file contents, remembered so that a large folder is read once and not before every run.

A digest is remembered by path, size and modification time in a small SQLite file in the user's cache folder. A
file changed within the last seconds is never remembered: a second change could carry the same time stamp. Losing
the memory, or two processes using it at once, costs time and never changes a result. No torch here.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from headstart.system.folders import user_cache_dir
from headstart.system.hardware import usable_cores
from headstart.system.regular import check_regular

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

UNREADABLE = "unreadable:"

_RACY_NS = 2_000_000_000
_CHUNK = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checks (sha256 TEXT, reader TEXT, error TEXT, PRIMARY KEY (sha256, reader)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (sha256 TEXT, reader TEXT, picture BLOB, PRIMARY KEY (sha256, reader));
"""


def default_memory_path() -> Path:
    """Where digests are remembered: in the user's cache folder."""
    return user_cache_dir() / "digests.sqlite"


def combined_digest(parts: Iterable[tuple[str, str]]) -> str:
    """Digest of ``(name, digest)`` pairs in the order given."""
    digest = hashlib.sha256()
    for name, value in parts:
        digest.update(f"{len(name)}:{name}:{value}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def file_digests(paths: Sequence[Path], memory_path: str | Path | None = None) -> list[str]:
    """SHA-256 of each file's bytes, read in parallel threads where it is not remembered.

    Of a file that is missing or cannot be read it is ``unreadable:`` and the reason instead.
    """
    with DigestMemory(memory_path) as memory:
        known = memory.digests(paths)
        unknown = [path for path in paths if path not in known]
        for path, (digest, stat) in zip(unknown, in_threads(_digest_of, unknown), strict=True):
            known[path] = digest
            if stat is not None:
                memory.remember_digest(path, stat, digest)
    return [known[path] for path in paths]


def digest_file(path: str | Path, memory_path: str | Path | None = None) -> str:
    """SHA-256 of one file's bytes, remembered likewise.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path).resolve()  # The hub's cache names one file by many links.
    with DigestMemory(memory_path) as memory:
        if known := memory.digests([path]):
            return known[path]
        digest, stat = _read(path)
        memory.remember_digest(path, stat, digest)
        return digest


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``work`` of every item, in order; for work that reads files or decodes images, which leaves the GIL."""
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(max_workers=min(16, usable_cores())) as pool:
        return list(pool.map(work, items))


class DigestMemory:
    """The SQLite file behind the digests; a context manager that writes what it learnt when it closes.

    Every failure of the file itself (read-only folder, lock, damage) is logged and otherwise means "not remembered".
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else default_memory_path()
        self._connection: sqlite3.Connection | None = None
        self._new_files: list[tuple[str, int, int, str]] = []
        self._new_checks: list[tuple[str, str, str]] = []
        self._new_pictures: list[tuple[str, str, bytes]] = []

    def __enter__(self) -> "DigestMemory":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=10)
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            self._forget(error)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._connection is None:
            return
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", self._new_files)
                self._connection.executemany("INSERT OR REPLACE INTO checks VALUES (?, ?, ?)", self._new_checks)
                self._connection.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?)", self._new_pictures)
        except sqlite3.Error as error:
            self._forget(error)
        finally:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def digests(self, paths: Sequence[Path]) -> dict[Path, str]:
        """The remembered digests of those files that have not changed since."""
        keys = {path: _key(path) for path in paths}
        rows = self._select("SELECT path, size, mtime_ns, sha256 FROM files WHERE path IN", list(keys.values()))
        remembered = {row[0]: row[1:] for row in rows}
        known: dict[Path, str] = {}
        for path, key in keys.items():
            if key not in remembered:
                continue
            size, mtime_ns, digest = remembered[key]
            with contextlib.suppress(OSError):
                stat = path.stat()
                if (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns):
                    known[path] = digest
        return known

    def remember_digest(self, path: Path, stat: os.stat_result, digest: str) -> None:
        """Keep the digest of a file as it was when ``stat`` was taken, before it was read."""
        if time.time_ns() - stat.st_mtime_ns > _RACY_NS:
            self._new_files.append((_key(path), stat.st_size, stat.st_mtime_ns, digest))

    def checks(self, digests: Sequence[str], reader: str) -> dict[str, str]:
        """By content digest what ``reader`` found in it, such as what is wrong; the empty string for nothing."""
        rows = self._select("SELECT sha256, reader, error FROM checks WHERE sha256 IN", list(digests))
        return {digest: error for digest, by, error in rows if by == reader}

    def remember_check(self, digest: str, reader: str, error: str) -> None:
        """Keep what ``reader`` found in this content."""
        self._new_checks.append((digest, reader, error))

    def pictures(self, digests: Sequence[str], reader: str) -> dict[str, bytes]:
        """By content digest the small picture that ``reader`` made of it."""
        rows = self._select("SELECT sha256, reader, picture FROM pictures WHERE sha256 IN", list(digests))
        return {digest: picture for digest, by, picture in rows if by == reader}

    def remember_picture(self, digest: str, reader: str, picture: bytes) -> None:
        """Keep the small picture that ``reader`` made of this content."""
        self._new_pictures.append((digest, reader, picture))

    def _select(self, query: str, keys: list[str]) -> list[tuple]:
        rows: list[tuple] = []
        if self._connection is None:
            return rows
        try:
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                marks = ",".join("?" * len(chunk))
                rows += self._connection.execute(f"{query} ({marks})", chunk).fetchall()
        except sqlite3.Error as error:
            self._forget(error)
            return []
        return rows

    def _forget(self, error: Exception) -> None:
        logger.warning("digests are not remembered in %s: %s", self.path, error)
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _key(path: Path) -> str:
    return str(path.absolute()).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read(path: Path) -> tuple[str, os.stat_result]:
    check_regular(path)
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest(), stat


def _digest_of(path: Path) -> tuple[str, os.stat_result | None]:
    try:
        return _read(path)
    except OSError as error:
        return f"{UNREADABLE}{error.strerror or error}", None
