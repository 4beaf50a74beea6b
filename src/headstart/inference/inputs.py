"""Which images: files, folders, tar files, patterns, tables and standard input, listed as they are wanted; no torch."""

import codecs
import csv
import glob
import io
import re
import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import IO

from headstart.data.scan import IMG_EXTENSIONS, iterate_images
from headstart.data.sources.tar_files import TAR, images_in, leads_into
from headstart.errors import DataError
from headstart.system.names import legible
from headstart.system.regular import check_regular

STANDARD_INPUT = "-"
_TABLES = (".csv", ".tsv")


def find_images(inputs: Iterable[str | Path], *, column: str = "path") -> Iterator[str]:
    """Paths of images, each once, in a fixed order; a folder of millions is not read before its images are asked for.

    Of several inputs, or one that may repeat itself, eight bytes of each path are remembered; of one folder nothing.

    Args:
        inputs: image files; folders, with all that is below them; tar files, with all that is inside; patterns
            (``photos/**/*.jpg``); tables (``.csv`` or ``.tsv``) of paths that start from the table's folder; ``-``: one
            path a line on standard input.
        column: of the paths in tables.

    Raises:
        DataError: something does not exist, or holds no image.
    """
    given = [str(item) for item in inputs]
    parts = [_begun(item, _listed(item, column)) for item in given]
    folder = len(given) == 1 and Path(given[0]).expanduser().is_dir()
    return chain.from_iterable(parts) if folder else _each_once(chain.from_iterable(parts))


def _listed(given: str, column: str) -> Iterator[str]:
    if given == STANDARD_INPUT:
        return _from_standard_input()
    path = Path(given).expanduser()
    if path.is_dir():
        return _opened(path / name for name in iterate_images(path, (*IMG_EXTENSIONS, TAR)))
    if path.suffix.lower() in _TABLES and path.exists():
        return _from_table(path, column)
    if path.exists() or leads_into(path):
        return _opened([path])
    if glob.has_magic(given):
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        return _opened(file for file in found if file.is_file())
    raise DataError(f"{given} does not exist; give image files, a folder of them, a pattern, or a table of paths.")


def _opened(files: Iterable[Path]) -> Iterator[str]:
    """The files, of tar files the images inside."""
    for file in files:
        if file.suffix.lower() == TAR:
            yield from images_in(file)
        else:
            yield file.as_posix()


def _begun(given: str, names: Iterator[str]) -> Iterator[str]:
    """The same names, of which there is at least one."""
    first = next(names, None)
    if first is None:
        what = "standard input names" if given == STANDARD_INPUT else f"{given} holds"
        raise DataError(f"{what} no image files; give image files or a folder of them.")
    return chain([first], names)


def _each_once(names: Iterable[str]) -> Iterator[str]:
    seen: set[int] = set()
    for name in names:
        # A third of the memory of the paths; among a million of them two are taken for one in one call of 10 million.
        key = int.from_bytes(blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest())
        if key not in seen:
            seen.add(key)
            yield name


def _from_standard_input() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return (name for name in (line.rstrip("\r\n") for line in sys.stdin) if name.strip())


def _as_text(table: Path) -> IO[str]:
    """As text: UTF-8, whose names may hold other bytes, or UTF-16 where it says so."""
    try:
        check_regular(table)
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error}") from None
    with table.open("rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding, errors = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
    return table.open(encoding=encoding, errors=errors, newline="")


def _from_table(table: Path, column: str) -> Iterator[str]:
    with _as_text(table) as file:
        header, skipped = file.readline(), 0
        if declared := re.fullmatch(r"sep=(.)\s*", header):  # what a spreadsheet writes for itself
            header, skipped = file.readline(), 1
        given = declared.group(1) if declared else "\t" if table.suffix.lower() == ".tsv" else ""
        mark = given or next((mark for mark in ",;\t" if mark in header), ",")
        rows = csv.reader(chain([header], file), delimiter=mark, skipinitialspace=True)
        try:
            names = [name.strip() for name in next(rows, [])]
            if column not in names:
                found = legible(", ".join(names))
                raise DataError(f"{table} has no column {column}, only {found}; name that of the paths: --column")
            place = names.index(column)
            for row in rows:
                if not row:
                    continue
                name = row[place].strip().replace("\\", "/") if place < len(row) else ""
                if not name:
                    raise DataError(
                        f"{table}, line {rows.line_num + skipped}: {column} is empty; give the path of an image"
                    )
                yield (table.parent / name).as_posix()
        except csv.Error as error:
            raise DataError(f"{table} cannot be read, line {rows.line_num + skipped}: {error}") from None
