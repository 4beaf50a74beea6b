"""Making an entry of the store: rows written as they come, put together at the end."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from headstart.errors import CacheError
from headstart.store.entry import IMAGES, META, USED, Meta, Shard
from headstart.system.atomic import flush_folder, write_json

_SHA256 = re.compile("[0-9a-f]{64}")
SHARD_BYTES = 256 * 2**20
_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class ShardWriter:
    """Writes rows into files of bounded size as they come; one process's part of an entry. A context manager.

    Args:
        folder: the entry's temporary folder.
        part: of this process; parts follow each other in the entry.
        shard_bytes: size from which on a new file is begun.
    """

    def __init__(self, folder: Path, *, part: int = 0, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.part, self.shard_bytes = folder, part, shard_bytes
        self.dtype = ""
        self.shape: tuple[int, ...] = ()
        self.shards: list[Shard] = []
        self._file: Any = None
        self._sha = hashlib.sha256()
        self._rows = self._bytes = 0

    def append(self, rows: np.ndarray) -> None:
        """Write ``(n, *shape)``.

        Raises:
            CacheError: there is no space left, or the rows differ from the earlier ones in shape or type.
        """
        if not self.dtype:
            self.dtype, self.shape = rows.dtype.name, tuple(rows.shape[1:])
        if (rows.dtype.name, tuple(rows.shape[1:])) != (self.dtype, self.shape):
            raise CacheError(
                f"rows of {rows.dtype.name} {tuple(rows.shape[1:])} follow rows of {self.dtype} {self.shape}; "
                "the backbone's activations change from batch to batch, use cache=off"
            )
        if not len(rows):
            return
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        with space_for(self.folder):
            if self._file is None:
                self._file = (self.folder / self._name()).open("wb")
            self._file.write(data)
        self._sha.update(data)
        self._rows += len(rows)
        self._bytes += data.nbytes
        if self._bytes >= self.shard_bytes:
            self._finish_shard()

    def finish(self) -> None:
        """Flush to disk, and leave a note from which the entry is put together."""
        self._finish_shard()
        shards = [[s.file, s.rows, s.sha256, s.mtime_ns] for s in self.shards]
        with space_for(self.folder):
            write_json(self._note(), {"dtype": self.dtype, "shape": list(self.shape), "shards": shards})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        """Finish, or after an error only close the file: the folder is removed by whoever made it."""
        if error is None:
            self.finish()
        elif self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _finish_shard(self) -> None:
        if self._file is None:
            return
        name = self._name()
        with space_for(self.folder):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        mtime = (self.folder / name).stat().st_mtime_ns
        self.shards.append(Shard(name, self._rows, self._sha.hexdigest(), mtime))
        self._file, self._sha, self._rows, self._bytes = None, hashlib.sha256(), 0, 0

    def _name(self) -> str:
        return f"{self.part:05d}-{len(self.shards):05d}.bin"

    def _note(self) -> Path:
        return self.folder / f"part-{self.part:05d}.json"


class Build:
    """An entry being made, under a temporary name. One process finishes it; others may write parts of it."""

    def __init__(self, folder: Path, final: Path) -> None:
        self.folder, self.final = folder, final
        self.finished = False
        self._started = time.perf_counter()

    def finish(self, about: Mapping[str, Any], *, rows: int, images: Sequence[str] = (), share: float = 1.0) -> None:
        """Put the parts together and give the entry its name.

        Args:
            about: recorded with the entry.
            rows: that it must have.
            images: SHA-256 of what each row is of, so that it can be found again; by default that is not noted.
            share: of the time since the build began that counts as this entry's, where several are made at once.

        Raises:
            CacheError: parts are missing or differ, or there is no space left.
        """
        parts = [json.loads(note.read_text(encoding="utf-8")) for note in sorted(self.folder.glob("part-*.json"))]
        filled = [part for part in parts if part["shards"]]
        kinds = {(part["dtype"], tuple(part["shape"])) for part in filled}
        shards = tuple(Shard(*shard) for part in filled for shard in part["shards"])
        if len(kinds) != 1 or sum(shard.rows for shard in shards) != rows:
            raise CacheError(
                f"{self.folder} holds {sum(shard.rows for shard in shards)} rows of {len(kinds)} kinds instead of "
                f"{rows} of one; if several machines train together, put paths.cache_dir where all see it"
            )
        dtype, shape = kinds.pop()
        for note in self.folder.glob("part-*.json"):
            note.unlink()
        seconds = share * (time.perf_counter() - self._started)
        host = {"host": socket.gethostname(), "created": int(time.time())}
        with space_for(self.folder):
            (self.folder / USED).touch()
            noted = b"".join(map(_packed, images))
            if noted:
                (self.folder / IMAGES).write_bytes(noted)
                about = {**about, IMAGES: hashlib.sha256(noted).hexdigest()}
            Meta(self.final.name, dtype, shape, shards, seconds, {**about, **host}).write(self.folder / META)
        if self.final.exists():  # only where there are no locks: another process was faster
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            flush_folder(self.folder)
            self.folder.rename(self.final)
            flush_folder(self.final.parent)
        self.finished = True


def _packed(digest: str) -> bytes:
    """A SHA-256 in 32 bytes; zeros for what is none, which no image has."""
    return bytes.fromhex(digest) if _SHA256.fullmatch(digest) else bytes(32)


@contextmanager
def space_for(folder: Path) -> Iterator[None]:
    """Turn a full disk, and a folder that cannot be written to, into an error that says what to do."""
    try:
        yield
    except OSError as error:
        remedy = "free some, run `headstart cache rm`, point paths.cache_dir at another disk, or use cache=off"
        if error.errno in _NO_SPACE:
            raise CacheError(f"no space left in {folder.parent} for stored activations; {remedy}") from error
        raise CacheError(f"{folder} cannot be written to ({error}); point paths.cache_dir elsewhere") from error
