"""A table of images: one line an image, with its path, its targets and perhaps its split. No torch here."""

import codecs
import csv
import io
import math
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headstart.data.scan import split_of
from headstart.errors import DataError
from headstart.system.extras import require_extra
from headstart.system.names import natural
from headstart.system.regular import check_regular

Kind = Literal["classes", "labels", "values"]

Rows = list[tuple[str, dict[str, str]]]
"""Each row's place in its file, for messages, and its values by column."""

KIND_OF_TASK: dict[str, Kind] = {"regression": "values", "multilabel": "labels"}
_SHOWN = 5
_PARQUET = {".parquet", ".pq"}


@dataclass(frozen=True)
class Manifest:
    """The lines of a table, checked.

    Attributes:
        paths: relative to the root of the images, or absolute, as written.
        splits: ``train``, ``val`` or ``test`` of each line.
        targets: class positions ``(N,)``; labels or numbers ``(N, columns)``, float64 where 32 bits are too coarse.
        classes: names of classes, labels or quantities.
        kind: of the targets.
        groups: of each line; None: the table has none.
        lines: where each is in the file (``line 2``), for messages.
    """

    paths: list[str]
    splits: list[str]
    targets: np.ndarray
    classes: tuple[str, ...]
    kind: Kind
    groups: list[str] | None
    lines: list[str]


@dataclass(frozen=True)
class Columns:
    """Where a table has what.

    Attributes:
        path: column of the images' paths.
        targets: columns of the targets; empty: all but those of path and split.
        split: column of the split; a table without it has none.
        separator: between the labels in a single column of several labels.
        group: column of what belongs together; None: there is none.
    """

    path: str = "path"
    targets: Sequence[str] = ()
    split: str = "split"
    separator: str = "|"
    group: str | None = None

    @property
    def set_apart(self) -> tuple[str, ...]:
        """Those that are no targets unless they are named."""
        return (self.path, self.split, *([self.group] if self.group else []))


def read_manifest(file: str | Path, columns: Columns, kind: Kind) -> Manifest:
    """Read and check a table.

    Args:
        file: comma-separated with a header line; tabs for ``.tsv``, semicolons where the header has no comma; Parquet
            for ``.parquet``.
        columns: their names.
        kind: of the targets: one class (any text), numbers, or labels (one column of 0 and 1 for each, or a single
            column of names with a separator between them).

    Raises:
        DataError: the table cannot be read, or a line of it is wrong; the message has the number of the line.
    """
    rows, names = _rows(Path(file), columns.separator)
    _check_columns(file, columns, names)
    wanted = list(columns.targets) or [name for name in names if name not in columns.set_apart]
    if not wanted:
        raise DataError(
            f"{file} has no column of targets beside {', '.join(names)}; add one, or name it (target_columns)"
        )
    paths = _paths(file, rows, columns.path)
    splits = [_split(file, line, row[columns.split]) for line, row in rows] if columns.split in names else None
    targets, classes = parse_targets(file, rows, wanted, kind, columns.separator)
    groups = None if columns.group is None else _groups(file, rows, columns.group)
    lines = [line for line, _ in rows]
    return Manifest(paths, splits or ["train"] * len(rows), targets, classes, kind, groups, lines)


def parse_targets(
    file: str | Path, rows: Rows, wanted: Sequence[str], kind: Kind, separator: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """What rows of text say of the images.

    Args:
        file: where they are, for messages.
        rows: each with its place there.
        wanted: their columns with targets.
        kind: of the targets.
        separator: between the labels in a single column.

    Returns: ``(N,)`` or ``(N, columns)``, and the names of classes, labels or quantities.

    Raises:
        DataError: a row is wrong.
    """
    if kind == "values":
        numbers = [[_number(file, line, name, row[name]) for name in wanted] for line, row in rows]
        return as_narrow_as_exact(np.array(numbers, dtype=np.float64)), tuple(wanted)
    return _labels(file, rows, wanted, separator) if kind == "labels" else _classes(file, rows, wanted)


def listed_paths(file: str | Path, path_column: str, mask_column: str | None = None) -> list[str]:
    """The paths in a table, as written, for a digest of what they hold; masks included where there are such.

    Raises:
        DataError: the table cannot be read.
    """
    rows, names = _rows(Path(file), Columns.separator)
    masks = () if mask_column is None else (mask_column,)
    _check_columns(file, Columns(path_column, masks), names)
    return [*_paths(file, rows, path_column), *sorted({row[column] for _, row in rows for column in masks})]


def sorts_by_number(file: str | Path, path_column: str) -> bool:
    """Whether names in a table of images have another order by the numbers in them than by their characters."""
    rows, columns = _rows(Path(file), Columns.separator)
    found = [{row[column] for _, row in rows} for column in columns if column != path_column]
    return any(sorted(names) != sorted(names, key=natural) for names in found)


def _rows(file: Path, separator: str) -> tuple[Rows, list[str]]:
    """Rows, each with its place in the file (``line 2``), and the names of the columns; those without are left out."""
    if file.suffix.lower() in _PARQUET:
        return _parquet_rows(file, separator)
    text = _text(file)
    first, _, rest = text.partition("\n")
    declared = re.fullmatch(r"sep=(.)\s*", first)  # what a spreadsheet writes for itself
    skipped = 1 if declared else 0
    text = rest if declared else text
    header = text.partition("\n")[0]
    if not header.strip():
        raise DataError(f"{file} is empty; its first line names the columns, such as path,target")
    mark = declared.group(1) if declared else _delimiter(file, header)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True)
    rows = []
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = [name or f"\0{place}" for place, name in enumerate(names)]
        for row in reader:
            line = f"line {reader.line_num + skipped}"
            if None in row or None in row.values():
                found = sum(value is not None for value in row.values()) + len(row.get(None, ()))
                raise DataError(f"{file}, {line}: {found} values for {len(names)} columns")
            rows.append((line, {name: value.strip() for name, value in row.items() if not name.startswith("\0")}))
    except csv.Error as error:
        raise DataError(f"datamodule.manifest={file} cannot be read, line {reader.line_num}: {error}") from None
    if not rows:
        raise DataError(f"{file} has a header line but no images")
    return rows, [name for name in names if name]


def _parquet_rows(file: Path, separator: str) -> tuple[Rows, list[str]]:
    """The same of a Parquet file, whose rows are counted from 1; a list in a cell is joined with ``separator``."""
    require_extra(f"datamodule.manifest={file} is Parquet, which", "parquet", error=DataError)
    import pyarrow
    from pyarrow import parquet

    try:
        check_regular(file)
        table = parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"datamodule.manifest={file} cannot be read as Parquet: {reason}") from None
    for column in table.schema:
        kind = column.type.value_type if pyarrow.types.is_list(column.type) else column.type
        if pyarrow.types.is_nested(kind) or pyarrow.types.is_binary(kind):
            raise DataError(
                f"{file}: the column {column.name} holds {column.type}; a table of images has paths, texts and numbers "
                "(images inside Parquet files are read by datamodule=hf)"
            )
    names = [name for name in table.column_names if name and not name.startswith("__index_level_")]
    columns = [[cell(value, separator) for value in table[name].to_pylist()] for name in names]
    given = enumerate(zip(*columns, strict=True), start=1)
    rows = [(f"row {number}", dict(zip(names, row, strict=True))) for number, row in given]
    if not rows:
        raise DataError(f"{file} has columns but no images")
    return rows, names


def cell(value: Any, separator: str) -> str:
    """A value as a table of text has it; a list is joined with ``separator``."""
    if value is None:
        return ""
    if isinstance(value, list):
        return separator.join(cell(item, separator) for item in value)
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer() and abs(value) < 2**53):
        return str(int(value))
    return str(value).strip()


def _text(file: Path) -> str:
    """The whole table as text, a single line feed between its lines: UTF-8, or UTF-16 where it says so."""
    try:
        check_regular(file)
        data = file.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"datamodule.manifest={file} is not UTF-8: line {line} holds the byte {data[error.start]:#04x}; save it as "
            f"UTF-8 (iconv -f latin1 -t utf-8, or `CSV UTF-8` in a spreadsheet)"
        ) from None
    except OSError as error:
        raise DataError(f"datamodule.manifest={file} cannot be read: {error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _delimiter(file: Path, header: str) -> str:
    if file.suffix.lower() in {".tsv", ".tab"}:
        return "\t"
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def _check_columns(file: str | Path, columns: Columns, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{file} has two columns called {twice[0]}; rename one")
    named = [("path_column", columns.path), *(("target_columns", name) for name in columns.targets)]
    named += [("group_column", columns.group)] if columns.group is not None else []
    for key, name in named:
        if name not in names:
            raise DataError(f"{file} has no column {name}; it has {', '.join(names)}. Set datamodule.{key}.")


def _paths(file: str | Path, rows: Rows, column: str) -> list[str]:
    lines: dict[str, str] = {}
    paths: list[str] = []
    for line, row in rows:
        path = row[column].replace("\\", "/")
        if not path:
            raise DataError(f"{file}, {line}: {column} is empty; give the path of an image")
        place = posixpath.normpath(path)
        if place in lines:
            raise DataError(f"{file}, {line}: {path} is on {lines[place]} already; keep one of them")
        lines[place] = line
        paths.append(path)
    return paths


def _split(file: str | Path, line: str, value: str) -> str:
    split = split_of(value)
    if split is None:
        raise DataError(f"{file}, {line}: split={value or '(empty)'} is not train, val or test")
    return split


def _groups(file: str | Path, rows: Rows, column: str) -> list[str]:
    for line, row in rows:
        if not row[column]:
            raise DataError(f"{file}, {line}: {column} is empty; give the group of the image")
    return [row[column] for _, row in rows]


def _number(file: str | Path, line: str, column: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{file}, {line}: {column}={value or '(empty)'} is not a finite number, as task=regression needs; "
            "correct it or remove the line, and name the columns of targets with datamodule.target_columns"
        )
    return number


def _classes(file: str | Path, rows: Rows, wanted: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    if len(wanted) > 1:
        raise DataError(
            f"{file} has several columns that could be the class ({', '.join(wanted[:_SHOWN])}); name it: "
            f"datamodule.target_columns=[{wanted[0]}]. For several labels an image use task=multilabel, for numbers "
            "task=regression."
        )
    (column,) = wanted
    for line, row in rows:
        if not row[column]:
            raise DataError(f"{file}, {line}: {column} is empty; give the class of the image")
    classes = tuple(sorted({row[column] for _, row in rows}, key=natural))
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place[row[column]] for _, row in rows], dtype=np.int64), classes


def _labels(file: str | Path, rows: Rows, wanted: Sequence[str], separator: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if len(wanted) == 1 and any(row[wanted[0]] not in ("0", "1") for _, row in rows):
        listed = [[name.strip() for name in row[wanted[0]].split(separator) if name.strip()] for _, row in rows]
        if all(len(names) == 1 for names in listed):
            raise DataError(
                f"{file}: '{separator}' is on no line of {wanted[0]} ({rows[0][0]}: {rows[0][1][wanted[0]]}), so "
                "every image would have one label of its own; name the character between labels with "
                "datamodule.separator, or use task=multiclass for one class an image"
            )
        classes = tuple(sorted({name for names in listed for name in names}, key=natural))
        if not classes:
            raise DataError(f"{file}: {wanted[0]} is empty on every line; give the labels, with '{separator}' between")
        return np.array([[name in names for name in classes] for names in listed], dtype=np.float32), classes
    for line, row in rows:
        for column in wanted:
            if row[column] not in ("0", "1"):
                raise DataError(
                    f"{file}, {line}: {column}={row[column] or '(empty)'} is not 0 or 1, as task=multilabel needs "
                    "of several columns; name those of the labels with datamodule.target_columns"
                )
    return np.array([[float(row[column]) for column in wanted] for _, row in rows], dtype=np.float32), tuple(wanted)


def as_narrow_as_exact(values: np.ndarray) -> np.ndarray:
    """Numbers ``(N, columns)`` in 32 bits where that leaves their differences alone (not of times since 1970)."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    close = np.abs(narrow.astype(np.float64) - values) <= 1e-4 * values.std(axis=0) + 0.0
    return narrow if close.all() and np.isfinite(narrow).all() else values
