"""Files appear complete or not at all: written under a temporary name, flushed to disk, then renamed."""

import contextlib
import csv
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from headstart.system.names import cell, legible
from headstart.system.regular import check_regular

_LONGEST_NAME = 200
"""Bytes of a file's name that its temporary one repeats; file systems allow 255 in all."""


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that replaces it when the block ends without an error.

    Args:
        path: the final name; missing parent folders are made.
        mode: ``"w"`` for UTF-8 text or ``"wb"`` for bytes.
    """
    # A file's name may hold bytes that are no UTF-8; what is written must be.
    encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
    with atomic_path(path) as temporary, temporary.open(mode, encoding=encoding, errors=errors) as file:
        yield file


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write a file under, for libraries that want a name; else as above."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])
    temporary = path.with_name(f".{known}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        _give_usual_rights(temporary)
        _flush(temporary)
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # writing to a full disk does not say where
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinities are refused by name."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")


def read_note(path: str | Path) -> dict[str, Any]:
    """What :func:`write_json` wrote; an empty dict where there is nothing, or no legible one."""
    try:
        check_regular(path)
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically; columns in the order of their first appearance, absent values empty.

    Names that come from elsewhere are written as people may see them: no control characters, no formulas.
    """
    shown = [
        {key: cell(legible(value)) if isinstance(value, str) else value for key, value in row.items()} for row in rows
    ]
    columns = list(dict.fromkeys(key for row in shown for key in row))
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, fieldnames=columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(shown)


def copy_file(source: str | Path, path: str | Path) -> None:
    """Copy a file's content, atomically."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def flush_folder(folder: str | Path) -> None:
    """Let the names in a folder survive a loss of power; where folders cannot be flushed, nothing happens."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some network file systems
            _flush(folder)


def remove_leftovers(folder: str | Path) -> None:
    """Remove temporary files that processes which were killed have left; the caller knows that nobody writes there."""
    for path in Path(folder).glob(".*.tmp"):
        if path.is_file() or path.is_symlink():
            path.unlink(missing_ok=True)


def _give_usual_rights(path: Path) -> None:
    """To a file that a library made for its owner alone, as safetensors does: those that the umask leaves."""
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) == 0o600:
        probe = path.with_suffix(".rights.tmp")
        try:
            probe.touch()
            path.chmod(stat.S_IMODE(probe.stat().st_mode))
        finally:
            probe.unlink(missing_ok=True)


def _flush(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
