"""A file of rows that grows, and how far it is known to be done, so that a killed process loses seconds only.

``<output>.part`` has the rows, ``<output>.part.journal`` a line for every few seconds of work: how many images are
done, how many bytes of rows they made, a checksum of those bytes, and a digest of the images' paths, sizes and times of
change. A line has a checksum of its own, and is written after the rows that it vouches for are on disk. The next start
goes on after the last line that still holds: that of the same runs and options, rows as they were written, and images
as they were read.
"""

import json
import os
import sys
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import IO, Any, Self

from headstart.data.sources.tar_files import stat_of
from headstart.errors import RunError
from headstart.system.atomic import atomic_write, flush_folder
from headstart.system.locks import FileLock
from headstart.system.names import legible

SECONDS = 5.0
"""Of work between two lines of the journal."""
_IMAGES = 10_000
_BLOCK = 1 << 20


@dataclass
class Mark:
    """A line of the journal: what is done from the beginning on, and the classes that came with this line."""

    images: int = 0
    rows: int = 0
    bytes: int = 0
    checksum: int = 0
    inputs: str = ""
    labels: dict[str, int] = field(default_factory=dict)


class PartFile:
    """Rows of ``output`` while they are being made; a context, and one process at a time.

    Attributes:
        resumed: images that earlier processes have done.
        replaced: there were rows, but of other work, or of images that are not the same any more.
        images: that are done in all, readable or not.
        rows: lines of readable images.
        labels: how often each class was given.

    Args:
        output: the file in the end.
        about: of the work; rows of other work are not taken over.
        header: before the first row.

    Raises:
        RunError: another process writes this file.
    """

    def __init__(self, output: Path, about: Mapping[str, Any], header: str) -> None:
        self.output, self._about, self._header = output, json.loads(json.dumps(about)), header
        self.path = output.with_name(f"{output.name}.part")
        self._journal_path = output.with_name(f"{output.name}.part.journal")
        self._lock = FileLock(output.with_name(f"{output.name}.part.lock"))
        self.resumed = self.images = self.rows = 0
        self.replaced = False
        self.labels: Counter[str] = Counter()
        self._new: Counter[str] = Counter()
        self._inputs = sha256()
        self._asked: deque[bytes] = deque()
        self._size = self._checksum = 0
        self._at, self._marked = monotonic(), 0
        self._file: IO[bytes]
        self._journal: IO[bytes]

    def __enter__(self) -> Self:
        if not self._lock.acquire(wait=False):
            raise RunError(
                f"{self.output} is being written by {self._lock.holder}; wait for it, or give another --output"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in ("_file", "_journal"):
            if hasattr(self, name):
                getattr(self, name).close()
        self._lock.path.unlink(missing_ok=True)
        self._lock.release()

    def fill(
        self,
        images: Iterator[str],
        outcomes: Callable[[Iterator[str]], Iterator[tuple[str, str]]],
        *,
        batch_size: int,
    ) -> None:
        """Make what is missing, and put it on disk; says on standard error where it goes on.

        Args:
            images: all of them, in the same order at each call.
            outcomes: of those that are not done yet, a row and a label each, as :meth:`add` takes them.
            batch_size: of the work on images.
        """
        left = self.begin(images)
        if self.resumed:
            say(f"going on after {self.resumed:,} images of an earlier start ({self.path.name})")
        elif self.replaced:
            say(f"starting anew: {self.path.name} is of another run, other options or other images")
        for place, (row, label) in enumerate(outcomes(left), start=1):
            self.add(row, label)
            # Between batches, so that the next start makes the same ones and gives the same digits.
            if place % batch_size == 0 and self.settle() and sys.stderr.isatty():
                print(f"\r{self.images:,} images", end="\r", file=sys.stderr)
        self.settle(at_once=True)

    def begin(self, images: Iterator[str]) -> Iterator[str]:
        """Those of the images that are not done yet; in the same order, each must then come to :meth:`add`."""
        marks = list(self._sound(self._read_journal()))
        good: list[Mark] = []
        pending: list[str] = []
        for mark in marks:
            inputs = self._inputs.copy()
            for name in images:
                pending.append(name)
                inputs.update(_stamp(name))
                if self.images + len(pending) == mark.images:
                    break
            if inputs.hexdigest() != mark.inputs:
                break
            good.append(mark)
            self._inputs, self.images, pending = inputs, mark.images, []
            self.labels.update(mark.labels)
        last = good[-1] if good else Mark()
        self.resumed, self.rows, self._size, self._checksum = last.images, last.rows, last.bytes, last.checksum
        self._marked = last.images
        self.replaced = not good and self.path.exists()
        with atomic_write(self._journal_path) as file:
            file.writelines([json.dumps(self._about) + "\n", *map(_line, good)])
        self._file = self.path.open("r+b" if good else "wb")
        self._file.truncate(self._size)
        self._file.seek(self._size)
        self._journal = self._journal_path.open("ab")
        if not good:
            self._write(self._header)
        flush_folder(self.path.parent)
        return self._stamped(chain(pending, images))

    def add(self, row: str, label: str = "") -> None:
        """The next image is done; ``row`` is empty where it is none, ``label`` where classes are not counted."""
        self._inputs.update(self._asked.popleft())
        self.images += 1
        self.rows += bool(row)
        if label:
            self._new[label] += 1
        self._write(row)

    def settle(self, *, at_once: bool = False) -> bool:
        """Put what is done on disk and note it, where it has been long enough; between two batches."""
        if self.images == self._marked:
            return False
        if not at_once and monotonic() - self._at < SECONDS and self.images - self._marked < _IMAGES:
            return False
        self._file.flush()
        os.fsync(self._file.fileno())
        mark = Mark(self.images, self.rows, self._size, self._checksum, self._inputs.hexdigest(), dict(self._new))
        self._journal.write(_line(mark).encode())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self.labels.update(self._new)
        self._new.clear()
        self._at, self._marked = monotonic(), self.images
        return True

    def finish(self) -> None:
        """All images are done: the rows get their name."""
        self.settle(at_once=True)
        self.path.replace(self.output)
        self.discard()

    def discard(self) -> None:
        """Remove what is only needed to go on."""
        self.path.unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)
        flush_folder(self.path.parent)

    def _stamped(self, images: Iterator[str]) -> Iterator[str]:
        for name in images:
            self._asked.append(_stamp(name))  # before it is read: one that is changed meanwhile is read again
            yield name

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        self._file.write(data)
        self._size += len(data)
        self._checksum = zlib.crc32(data, self._checksum)

    def _read_journal(self) -> Iterator[Mark]:
        """Its lines, as far as they were written whole and are of this work."""
        try:
            lines = self._journal_path.read_bytes().splitlines()
            if not lines or json.loads(lines[0]) != self._about:
                return
            for line in lines[1:]:
                check, _, text = line.partition(b" ")
                if int(check, 16) != zlib.crc32(text):
                    return
                yield Mark(**json.loads(text))
        except (OSError, ValueError, TypeError):
            return

    def _sound(self, marks: Iterator[Mark]) -> Iterator[Mark]:
        """Those whose rows are as they were written."""
        try:
            with self.path.open("rb") as file:
                done = checksum = 0
                for mark in marks:
                    while done < mark.bytes and (block := file.read(min(_BLOCK, mark.bytes - done))):
                        done, checksum = done + len(block), zlib.crc32(block, checksum)
                    if (done, checksum) != (mark.bytes, mark.checksum):
                        return
                    yield mark
        except OSError:
            return


def say(text: str) -> None:
    """A line for people, apart from what is made."""
    print(legible(text), file=sys.stderr)


def _line(mark: Mark) -> str:
    text = json.dumps(asdict(mark))
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _stamp(image: str) -> bytes:
    """What tells whether an image is still the one that was read."""
    try:
        found = stat_of(image)
        size, changed = found.st_size, found.st_mtime_ns
    except (OSError, ValueError):
        size = changed = -1
    return f"{image}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape")
