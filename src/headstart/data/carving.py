"""The splits of a source: those it has, those carved from its training images, and smaller training sets."""

import numpy as np

from headstart.data.records import Records, Source
from headstart.data.splits import carve, ranked_by_class, subset
from headstart.errors import DataError


def all_splits(source: Source, *, val_fraction: float, test_fraction: float, split_seed: int) -> dict[str, Records]:
    """The source's splits, with those carved from train that it lacks.

    Args:
        source: with a train split.
        val_fraction: carved where the source has no such split.
        test_fraction: likewise; 0: no test split.
        split_seed: of what is carved.

    Raises:
        DataError: a fraction does not fit what is there, or leaves nothing.
    """
    splits = dict(source.splits)
    if "train" not in splits:
        raise DataError(f"{source.name} has no training images, only {', '.join(splits) or 'none at all'}.")
    if "test" in splits and test_fraction > 0:
        raise DataError(
            f"{source.name} has a test split of its own ({len(splits['test'])} images); leave "
            "datamodule.test_fraction at 0."
        )
    if "val" not in splits and val_fraction <= 0:
        raise DataError(
            f"{source.name} has no validation split and datamodule.val_fraction={val_fraction}; give a val folder "
            "or a share such as 0.2: checkpoints are chosen on validation images, never on test."
        )
    train = splits["train"]
    groups, names = _strata(train, source)
    parts = carve(
        train.ids,
        groups,
        names,
        val_fraction=0.0 if "val" in splits else val_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
    )
    if len(parts) > 1:
        splits |= {split: train.take(positions) for split, positions in parts.items()}
    return splits


def some_training(
    train: Records, source: Source, *, shots: int | None, fraction: float | None, split_seed: int
) -> Records:
    """The training images that ``shots`` or ``fraction`` leave.

    Raises:
        DataError: both are given, there are too few images, or shots of data without classes are asked for.
    """
    if shots is not None and source.kind != "classes":
        raise DataError(
            f"datamodule.shots={shots} counts images a class, and {source.name} has no classes that exclude each "
            "other; use datamodule.fraction."
        )
    groups, names = _strata(train, source)
    chosen = subset(train.ids, groups, names, shots=shots, fraction=fraction, split_seed=split_seed)
    return train.take(chosen) if len(chosen) < len(train) else train


def some_of(records: Records, source: Source, count: int, split_seed: int) -> Records:
    """At most ``count`` images, evenly over the classes, by the split seed alone, in their own order."""
    if len(records) <= count:
        return records
    groups = ranked_by_class(records.ids, _strata(records, source)[0], split_seed).values()
    places = sorted(((rank + 0.5) / len(group), position) for group in groups for rank, position in enumerate(group))
    return records.take(np.array(sorted(position for _, position in places[:count]), dtype=np.int64))


def _strata(records: Records, source: Source) -> tuple[np.ndarray, tuple[str, ...]]:
    """Groups ``(N,)`` that a split keeps in proportion, and their names: the classes, else all images together."""
    if source.kind == "classes":
        return records.targets, source.classes
    return np.zeros(len(records), dtype=np.int64), ("(all images)",)
