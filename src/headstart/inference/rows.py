"""How predictions are written down: CSV, JSON lines, or Parquet made of them. No torch here."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from headstart.errors import ConfigError
from headstart.execution.predict import Prediction
from headstart.system.atomic import atomic_path
from headstart.system.extras import require_extra
from headstart.system.names import cell

_AT_ONCE = 10_000
# Tasks whose rows have numbers only, and what they are called.
_NUMBERS = {"regression": "values", "segmentation": "shares"}


def number_text(value: float, task: str) -> str:
    """Of a quantity all the digits that it may have, such as those of a time or a count; six of a probability."""
    return f"{value:.12g}" if task == "regression" else f"{value:.6g}"


class CsvRows:
    """``path``, ``class`` (or ``labels``), and ``probability/<class>`` for every class.

    For regression: ``path`` and a column for every quantity; for segmentation ``share/<class>``. A spreadsheet would
    run a name that begins like a formula: it gets an apostrophe before it.
    """

    def __init__(self, task: str, classes: Sequence[str]) -> None:
        self._task = task
        self.header = _csv_line(cell(name) for name in _columns(task, classes))

    def row(self, one: Prediction) -> str:
        """The whole line of an image."""
        label = [] if self._task in _NUMBERS else [cell(one.label)]
        return _csv_line([cell(one.path), *label, *(number_text(value, self._task) for value in one.probabilities)])


class JsonRows:
    """An object a line: ``path``, ``class`` and ``probabilities`` by class; or ``labels``, ``values`` or ``shares``."""

    header = ""

    def __init__(self, task: str, classes: Sequence[str]) -> None:
        self._task, self._classes = task, tuple(classes)

    def row(self, one: Prediction) -> str:
        """The whole line of an image."""
        shown = (float(number_text(value, self._task)) for value in one.probabilities)
        values = dict(zip(self._classes, shown, strict=True))
        told: dict[str, Any] = {"path": one.path}
        if self._task in _NUMBERS:
            told[_NUMBERS[self._task]] = values
        elif self._task == "multilabel":
            told |= {"labels": one.label.split("|") if one.label else [], "probabilities": values}
        else:
            told |= {"class": one.label, "probabilities": values}
        return json.dumps(told) + "\n"


FORMATS: dict[str, type[CsvRows] | type[JsonRows]] = {
    ".csv": CsvRows,
    ".jsonl": JsonRows,
    ".ndjson": JsonRows,
    ".parquet": JsonRows,
}
"""By the suffix of the output; Parquet is made of JSON lines in the end, as its files cannot be continued."""


def check_output(path: str | Path, formats: Iterable[str] = FORMATS) -> None:
    """Hold that something can be written there.

    Args:
        path: of the output.
        formats: suffixes; by default those of predictions.

    Raises:
        ConfigError: the suffix names no format, or what it needs is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in formats:
        raise ConfigError(f"--output={path}: the suffix names the format: {', '.join(formats)}")
    if path.suffix.lower() == ".parquet":
        require_extra(f"--output={path}", "parquet")


def write_parquet(lines: Path, path: Path, *, task: str, classes: Sequence[str]) -> None:
    """A table of the same columns as the CSV, from a file of :class:`JsonRows`; memory holds a few thousand rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = pa.float64() if task == "regression" else pa.float32()
    names, texts = [*_columns(task, classes)], 1 if task in _NUMBERS else 2
    kinds = [pa.string()] * texts + [numbers] * len(classes)
    schema = pa.schema([(utf8(name), kind) for name, kind in zip(names, kinds, strict=True)])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer, lines.open() as file:
        for rows in grouped(map(json.loads, file), _AT_ONCE):
            columns: list[list[Any]] = [[utf8(row["path"]) for row in rows]]
            if texts == 2:
                columns.append([utf8(row["class"] if "class" in row else "|".join(row["labels"])) for row in rows])
            key = _NUMBERS.get(task, "probabilities")
            columns += [[row[key][name] for row in rows] for name in classes]
            writer.write_table(pa.table([pa.array(*pair) for pair in zip(columns, kinds, strict=True)], schema=schema))


def utf8(text: str) -> str:
    """A name that may hold bytes which are no UTF-8, spelt out, as Parquet has none."""
    return text.encode("utf-8", "backslashreplace").decode()


def grouped(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The rows, so many at a time."""
    waiting = iter(rows)
    while group := list(islice(waiting, size)):
        yield group


def _columns(task: str, classes: Sequence[str]) -> Iterator[str]:
    yield from ("path", *([] if task in _NUMBERS else ["labels" if task == "multilabel" else "class"]))
    prefix = {"regression": "", "segmentation": "share/"}.get(task, "probability/")
    yield from (f"{prefix}{name}" for name in classes)


def _csv_line(values: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
