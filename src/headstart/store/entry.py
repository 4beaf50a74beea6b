"""One entry of the store: what its files hold, and reading them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import CacheError
from headstart.system.atomic import write_json
from headstart.system.digests import digest
from headstart.system.locks import FileLock
from headstart.system.regular import check_regular

FORMAT = 1
"""Part of every key; raised when entries of an earlier version must not be read."""

META, USED, IMAGES = "meta.json", "used", "images"


@dataclass(frozen=True)
class Shard:
    """One file of an entry: consecutive rows.

    Attributes:
        file: its name.
        rows: how many.
        sha256: of its bytes.
        mtime_ns: when it was written.
    """

    file: str
    rows: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class Meta:
    """What an entry holds.

    Attributes:
        key: its name.
        dtype: NumPy's name of the type of the values as they are stored.
        shape: of one row.
        shards: in the order of the rows.
        build_seconds: what making it took.
        about: for readers; not used by the store.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    shards: tuple[Shard, ...]
    build_seconds: float
    about: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(shard.rows for shard in self.shards)

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))

    @property
    def size_bytes(self) -> int:
        """Size of all rows."""
        return self.rows * self.row_bytes

    def write(self, path: Path) -> None:
        """As JSON with a digest of itself."""
        values = {
            "format": FORMAT,
            "key": self.key,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "shards": [[s.file, s.rows, s.sha256, s.mtime_ns] for s in self.shards],
            "build_seconds": round(self.build_seconds, 3),
            "about": dict(self.about),
        }
        write_json(path, {**values, "check": digest(values)})

    @classmethod
    def read(cls, path: Path) -> "Meta":
        """The inverse of :meth:`write`.

        Raises:
            CacheError: the file is missing, torn or altered.
        """
        try:
            check_regular(path)
            values = json.loads(path.read_text(encoding="utf-8"))
            check = values.pop("check")
            if check != digest(values) or values["format"] != FORMAT:
                raise CacheError(f"{path} was altered")
            shards = tuple(Shard(*shard) for shard in values["shards"])
            shape = tuple(values["shape"])
            return cls(values["key"], values["dtype"], shape, shards, values["build_seconds"], values["about"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CacheError(f"{path} cannot be read ({error})") from error


class Entry:
    """An opened entry; while it is open it is not removed.

    Reading maps the files into memory, so the process holds only what it asks for.
    """

    def __init__(self, path: Path, meta: Meta, lock: FileLock | None = None) -> None:
        self.path, self.meta, self._lock = path, meta, lock
        dtype = np.dtype(meta.dtype)
        self._starts = np.cumsum([0, *(shard.rows for shard in meta.shards)])
        # Copy-on-write: the files are never changed, and torch takes only writable arrays.
        self.shards: list[np.ndarray] = [
            np.memmap(path / shard.file, dtype=dtype, mode="c", shape=(shard.rows, *meta.shape))
            for shard in meta.shards
            if shard.rows
        ]

    @property
    def key(self) -> str:
        """Its name."""
        return self.meta.key

    def __len__(self) -> int:
        return self.meta.rows

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """``(n, *shape)``: the rows at these positions, in this order."""
        if len(self.shards) == 1:
            return self.shards[0][positions]
        gathered = np.empty((len(positions), *self.meta.shape), np.dtype(self.meta.dtype))
        which = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(which):
            chosen = which == number
            gathered[chosen] = self.shards[number][positions[chosen] - self._starts[number]]
        return gathered

    def close(self) -> None:
        """Let others remove it; the rows already taken stay good."""
        if self._lock is not None:
            self._lock.release()
