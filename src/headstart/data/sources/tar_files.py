"""Tar files that are read in place, and paths that lead into one: ``shards/000000.tar/cat1.jpg``. No torch here."""

import os
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from threading import Lock

from headstart.data.scan import IMG_EXTENSIONS
from headstart.errors import DataError
from headstart.system.regular import check_regular

TAR = ".tar"
"""Suffix of the files; compressed ones cannot be read in place."""

# Tar files whose members are remembered: images come one file after the other, and of two batches at a time.
_REMEMBERED = 2
_listing = Lock()


def members(tar: Path) -> Iterator[tuple[str, int, int]]:
    """Name, place of the first byte and size in bytes of each file inside, in order.

    Raises:
        DataError: it is damaged, compressed or no tar file.
    """
    try:
        check_regular(tar)
        whole = tar.stat().st_size
        with tarfile.open(tar, "r:") as file:
            for info in file:
                file.members = []  # type: ignore[attr-defined]  # the library would keep all of them
                if not info.isfile():
                    continue
                if info.size < 0 or info.offset_data + info.size > whole:
                    raise EOFError(f"{info.name} does not end within the file")
                yield PurePosixPath(info.name).as_posix(), info.offset_data, info.size
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{tar} is damaged, or no plain tar file: {error}") from None


def read_at(tar: Path, offset: int, size: int) -> bytes:
    """So many bytes of a file from a place on; any number of threads may ask."""
    with tar.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, offset)


def images_in(tar: Path) -> Iterator[str]:
    """Paths of the images in a tar file, in its order; what other systems leave beside files is no image."""
    for name, _, _ in members(tar):
        if name.lower().endswith(IMG_EXTENSIONS) and not name.rpartition("/")[2].startswith("."):
            yield (tar / name).as_posix()


def read_within(path: str | Path) -> bytes:
    """The file that a path into a tar file names.

    Raises:
        OSError: the path leads into no file that is there, or the tar file has no such member.
        DataError: the tar file is damaged.
    """
    tar = _tar_of(Path(path))
    name = Path(path).relative_to(tar).as_posix()
    found = tar.stat()
    with _listing:  # of several threads at the first image of a file one lists it
        places = _places(tar, found.st_size, found.st_mtime_ns)
    if name not in places:
        raise FileNotFoundError(f"{tar} has no {name}")
    return read_at(tar, *places[name])


def leads_into(path: Path) -> bool:
    """Whether a path goes through a tar file that is there."""
    return any(parent.suffix.lower() == TAR and parent.is_file() for parent in path.parents)


def stat_of(path: str | Path) -> os.stat_result:
    """Of a file; of one inside a tar file that of the tar file, whose change changes all in it.

    Raises:
        OSError: there is no such file.
    """
    try:
        return Path(path).stat()
    except NotADirectoryError:
        return _tar_of(Path(path)).stat()


def _tar_of(path: Path) -> Path:
    found = next((parent for parent in path.parents if parent.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{path} does not exist")
    return found


@lru_cache(maxsize=_REMEMBERED)
def _places(tar: Path, size: int, changed: int) -> dict[str, tuple[int, int]]:
    return {name: (offset, length) for name, offset, length in members(tar)}
