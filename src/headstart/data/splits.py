"""Stratified splits and subsets as pure functions of the images' ids, their classes and a split seed.

Within a class the images are ranked by a digest of the split seed and their id. Test images are taken from one end
of that order, validation images next, and small training sets from the other end. So splits do not depend on any
random generator's version, ten shots contain the five shots of the same seed, another ``val_fraction`` leaves the
test set as it was, and one more image in a folder moves next to nothing.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from headstart.data.records import Records, Source
from headstart.errors import DataError


def ranked_by_class(ids: Sequence[str], targets: np.ndarray, split_seed: int) -> dict[int, list[int]]:
    """Per class the positions of its images in the order that all splits and subsets are taken from."""
    keys = [hashlib.sha256(f"{split_seed}/{name}".encode("utf-8", "surrogateescape")).digest() for name in ids]
    order: dict[int, list[int]] = {int(target): [] for target in np.unique(targets)}
    for position in sorted(range(len(ids)), key=lambda position: (keys[position], ids[position])):
        order[int(targets[position])].append(position)
    return order


def carve(
    ids: Sequence[str],
    targets: np.ndarray,
    classes: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
) -> dict[str, np.ndarray]:
    """Split one set of images into ``train`` and, where their fraction is above 0, ``val`` and ``test``.

    Args:
        ids: a stable name for each image.
        targets: class positions, ``(N,)``.
        classes: class names, for messages.
        val_fraction: share of all these images, in each class, at least one image.
        test_fraction: likewise.
        split_seed: another seed gives another split.

    Returns: per split the sorted positions.

    Raises:
        DataError: the fractions leave nothing to train on, or a class has too few images to be in every split.
    """
    if val_fraction + test_fraction >= 1:
        raise DataError(
            f"datamodule.val_fraction={val_fraction} and datamodule.test_fraction={test_fraction} leave nothing to "
            "train on; together they must be below 1."
        )
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for target, order in ranked_by_class(ids, targets, split_seed).items():
        test = _share(test_fraction, len(order))
        val = _share(val_fraction, len(order))
        if test + val >= len(order):
            needed = 1 + (val_fraction > 0) + (test_fraction > 0)
            raise DataError(
                f"class {classes[target]} has {len(order)} image(s), too few for train, val and test shares of it "
                f"(it needs at least {needed}); add images, remove the class or lower the fractions."
            )
        parts["test"] += order[:test]
        parts["val"] += order[test : test + val]
        parts["train"] += order[test + val :]
    return {split: np.array(sorted(positions), dtype=np.int64) for split, positions in parts.items() if positions}


def subset(
    ids: Sequence[str],
    targets: np.ndarray,
    classes: Sequence[str],
    *,
    shots: int | None,
    fraction: float | None,
    split_seed: int,
) -> np.ndarray:
    """A smaller stratified training set: ``shots`` images of each class, or a ``fraction`` of each class.

    Smaller subsets of the same seed are contained in larger ones.

    Returns: the sorted positions.

    Raises:
        DataError: both are given, a value is out of range, or a class has fewer images than shots.
    """
    if shots is not None and fraction is not None:
        raise DataError(f"datamodule.shots={shots} and datamodule.fraction={fraction} exclude each other; give one.")
    if shots is None and fraction is None:
        return np.arange(len(ids), dtype=np.int64)
    chosen: list[int] = []
    for target, order in ranked_by_class(ids, targets, split_seed).items():
        if shots is not None and shots > len(order):
            raise DataError(
                f"datamodule.shots={shots} exceeds the {len(order)} training images of class {classes[target]}; "
                "lower it, or use datamodule.fraction."
            )
        count = shots if shots is not None else _share(fraction or 1.0, len(order))
        chosen += order[len(order) - count :]
    return np.array(sorted(chosen), dtype=np.int64)


def _share(fraction: float, total: int) -> int:
    """``fraction`` of ``total``, rounded half up, and at least 1 where the fraction is above 0."""
    return max(1, int(fraction * total + 0.5)) if fraction > 0 else 0


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
