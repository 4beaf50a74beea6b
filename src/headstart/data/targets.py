"""Targets of the three kinds: one class an image, several labels, or numbers."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.data.manifest import as_narrow_as_exact
from headstart.data.records import Records, Source
from headstart.errors import DataError


def only_classes(source: Source, wanted: Sequence[str | int]) -> Source:
    """The source with these classes only, in its own order.

    Raises:
        DataError: it has no such class, or no classes at all.
    """
    if source.kind != "classes":
        raise DataError(
            f"datamodule.classes={list(wanted)} chooses among classes, and {source.name} has none; use "
            "datamodule.target_columns."
        )
    names = [str(name) for name in wanted]
    for name in names:
        if name not in source.classes:
            close = difflib.get_close_matches(name, source.classes, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; it has {', '.join(source.classes[:10])}"
            raise DataError(f"datamodule.classes: {source.name} has no class {name}{hint}")
    kept = [position for position, name in enumerate(source.classes) if name in names]
    number = np.full(len(source.classes), -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    splits = {}
    for split, records in source.splits.items():
        chosen = records.take(np.flatnonzero(number[records.targets] >= 0))
        splits[split] = replace(chosen, targets=number[chosen.targets])
    return replace(source, splits=splits, classes=tuple(source.classes[position] for position in kept))


def check_present(splits: Mapping[str, Records], source: Source) -> None:
    """Every class must be in every split, and every label somewhere in train.

    Raises:
        DataError: one is not; names an image of it in another split.
    """
    for split in splits:
        _check_present(split, splits, source)


def _check_present(split: str, splits: Mapping[str, Records], source: Source) -> None:
    records = splits[split]
    if not len(records):
        raise DataError(f"the {split} split of {source.name} has no usable image; add some.")
    if source.kind in ("values", "masks") or (source.kind == "labels" and split != "train"):
        return
    empty = [number for number, count in enumerate(count_targets(records, source)) if count == 0]
    if empty:
        names, elsewhere = (
            ", ".join(source.classes[number] for number in empty[:5]),
            _elsewhere(empty[0], splits, source),
        )
        raise DataError(
            f"the {split} split has no usable image of class {names}{elsewhere}; add readable images or remove the "
            "class from every split."
        )


def _elsewhere(target: int, splits: Mapping[str, Records], source: Source) -> str:
    """An image of a class or label, and its split."""
    for split, records in splits.items():
        has = records.targets[:, target] == 1 if source.kind == "labels" else records.targets == target
        if has.any():
            return f", as {source.shown(records.ids[int(np.argmax(has))])} in {split} is"
    return ""


def count_targets(records: Records, source: Source) -> list[int]:
    """Images of each class or label, or with some of it."""
    if source.kind != "classes":
        return [int(count) for count in (records.targets > 0).sum(axis=0)]
    return [int(count) for count in np.bincount(records.targets, minlength=len(source.classes))]


def describe_targets(splits: dict[str, Records], source: Source) -> dict[str, Any]:
    """How often each class occurs in each split, or where the numbers lie."""
    if source.kind != "values":
        counts = {"class_counts": {split: count_targets(records, source) for split, records in splits.items()}}
        if source.kind != "masks":
            return counts
        shares = {split: records.targets.mean(axis=0).round(6).tolist() for split, records in splits.items()}
        return {**counts, "class_shares": shares}
    return {
        "target_ranges": {
            split: [[float(column.min()), float(column.mean()), float(column.max())] for column in records.targets.T]
            for split, records in splits.items()
        }
    }


def as_numbers(source: Source, splits: dict[str, Records]) -> tuple[Source, dict[str, Records]]:
    """Classes that are named by numbers (a folder for each age) as one quantity.

    Raises:
        DataError: a class's name is no finite number.
    """
    try:
        values = np.array([[float(name)] for name in source.classes])
    except ValueError:
        values = np.array([[np.nan]])
    if not np.isfinite(values).all():
        names = ", ".join(source.classes[:5])
        raise DataError(
            f"task=regression needs numbers, and {source.name} has classes ({names}); give a manifest "
            "(datamodule=csv), or name the classes by finite numbers."
        )
    values = as_narrow_as_exact(values)
    numbered = {split: replace(records, targets=values[records.targets]) for split, records in splits.items()}
    return replace(source, kind="values", classes=("value",)), numbered
