"""``metrics.csv``, a row an epoch, and the same as a line of text."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.system.atomic import atomic_write
from headstart.system.console import duration

Row = dict[str, float | int | str | None]

_MOST_SCORES = 4


def append_row(path: Path, row: Row) -> None:
    """Add an epoch's row; those of this epoch and later ones, which is trained again, go.

    The file is written anew as a whole, so that columns may appear later (validation every few epochs, groups of a
    later phase).
    """
    rows: list[Mapping[str, Any]] = []
    if row["epoch"] and path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [earlier for earlier in csv.DictReader(file) if int(earlier["epoch"]) < int(row["epoch"])]
    write_metrics(path, [*rows, row])


def write_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``metrics.csv`` as a whole."""
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, _columns(rows), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def distinct_rates(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without rates that only repeat: biases and norms learn at their group's and differ in weight decay only."""
    return {name: value for name, value in metrics.items() if not _repeats_rate(name, metrics)}


def epoch_line(row: Mapping[str, Any], max_epochs: int | None, monitor: str | None = None) -> str:
    """``Epoch 3/10  train/loss 0.41  val/loss 0.33  val/acc 0.93  2.1 s``: the monitored score and the first."""
    names = [name for name in ("train/loss", "val/loss") if name in row]
    scores = [name for name in row if name.startswith("val/") and name not in names]
    names += sorted(scores, key=lambda name: name != monitor)[:_MOST_SCORES]
    epochs = epochs_text(max_epochs)
    parts = [f"Epoch {row['epoch'] + 1:>{len(epochs)}}/{epochs}"]
    parts += [f"{name} {row[name]:.4f}" for name in names if row[name] is not None]
    return "  ".join([*parts, duration(row["seconds"])])


def epochs_text(max_epochs: int | None) -> str:
    """Of a training; ``?`` where only steps or time end it."""
    return "?" if max_epochs is None or max_epochs < 0 else str(max_epochs)


def _repeats_rate(name: str, metrics: Mapping[str, float]) -> bool:
    base = name.removesuffix("/no_decay")
    return name.startswith("lr/") and name != base and metrics.get(base) == metrics[name]


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    first = ("epoch", "step", "phase", "train/loss", "train/acc", "val/loss", "val/acc")
    seen = dict.fromkeys(name for row in rows for name in row)
    kind = {"train": 0, "val": 1, "lr": 3}

    def place(name: str) -> tuple[int, int]:
        if name in first:
            return (0, first.index(name))
        return (2, 0) if name == "seconds" else (1, kind.get(name.partition("/")[0], 2))

    return sorted(seen, key=place)
