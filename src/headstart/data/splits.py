"""Stratified splits and subsets as pure functions of the images' ids, their classes and a split seed.

Within a class the images are ranked by a digest of the split seed and their id. Test images are taken from one end
of that order, validation images next, and small training sets from the other end. So splits do not depend on any
random generator's version, ten shots contain the five shots of the same seed, another ``val_fraction`` leaves the
test set as it was, and one more image in a folder moves next to nothing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.data.leakage import check_apart, divide_groups, groups_of, with_every_class
from headstart.data.records import Records, Source
from headstart.errors import DataError

_VTAB_TRAIN, _VTAB_VAL = 800, 200


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
    check_fractions(val_fraction, test_fraction)
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for target, order in ranked_by_class(ids, targets, split_seed).items():
        test = _share(test_fraction, len(order))
        val = _share(val_fraction, len(order))
        if test + val >= len(order):
            needed = 1 + (val_fraction > 0) + (test_fraction > 0)
            numbers = ", or predict numbers with task=regression" if _are_numbers(classes) else ""
            raise DataError(
                f"class {classes[target]} has {len(order)} image(s), too few for train, val and test shares of it "
                f"(it needs at least {needed}); add images, remove the class or lower the fractions{numbers}."
            )
        parts["test"] += order[:test]
        parts["val"] += order[test : test + val]
        parts["train"] += order[test + val :]
    return {split: np.array(sorted(positions), dtype=np.int64) for split, positions in parts.items() if positions}


def _are_numbers(names: Sequence[str]) -> bool:
    try:
        return bool([float(name) for name in names])
    except ValueError:
        return False


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


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Refuse shares that leave nothing.

    Raises:
        DataError: they do.
    """
    if val_fraction + test_fraction >= 1:
        raise DataError(
            f"datamodule.val_fraction={val_fraction} and datamodule.test_fraction={test_fraction} leave nothing to "
            "train on; together they must be below 1."
        )


def _share(fraction: float, total: int) -> int:
    """``fraction`` of ``total``, rounded half up, and at least 1 where the fraction is above 0."""
    return max(1, int(fraction * total + 0.5)) if fraction > 0 else 0


@dataclass(frozen=True)
class Splitting:
    """How the splits that a data set lacks are carved from its training images.

    Attributes:
        val_fraction: share for validation where there is no such split.
        test_fraction: likewise for testing; 0: no test split.
        split_seed: of everything carved.
        folds: of a cross-validation; None: none.
        fold: the one that is the test split, from 0; the others are for training and validation.
        group_pattern: a regular expression in the images' ids; images with the same match stay together.
    """

    val_fraction: float
    test_fraction: float
    split_seed: int
    folds: int | None = None
    fold: int | None = None
    group_pattern: str | None = None

    def check(self, source: Source) -> None:
        """Refuse what does not fit the data set or itself.

        Raises:
            DataError: it does not.
        """
        if "train" not in source.splits:
            raise DataError(f"{source.name} has no training images, only {', '.join(source.splits) or 'none at all'}.")
        if "test" in source.splits and (self.test_fraction > 0 or self.folds):
            key = f"leave datamodule.{'folds' if self.folds else 'test_fraction'} at {'null' if self.folds else 0}"
            raise DataError(f"{source.name} has a test split of its own ({len(source.splits['test'])} images); {key}.")
        if "val" not in source.splits and self.val_fraction <= 0:
            raise DataError(
                f"{source.name} has no validation split and datamodule.val_fraction={self.val_fraction}; give a val "
                "folder or a share such as 0.2: checkpoints are chosen on validation images, never on test."
            )
        if self.folds is None and self.fold is not None:
            raise DataError(f"datamodule.fold={self.fold} is one of datamodule.folds, which is null; say how many.")
        if self.folds is not None and (self.fold is None or self.fold >= self.folds):
            raise DataError(
                f"datamodule.fold={'null' if self.fold is None else self.fold}: datamodule.folds={self.folds} has the "
                f"folds 0 to {self.folds - 1}, each the test split of one run; all of them: -m "
                f"'datamodule.fold=range({self.folds})'."
            )


def all_splits(source: Source, how: Splitting) -> dict[str, Records]:
    """The source's splits, with those carved from train that it lacks.

    Args:
        source: with a train split.
        how: what is carved.

    Raises:
        DataError: a choice does not fit what is there, leaves nothing, or a group is in two splits.
    """
    how.check(source)
    splits = dict(source.splits)
    check_apart(splits, source, how.group_pattern)
    if how.folds is not None and how.fold is not None:
        train, test = _fold(splits["train"], source, how, how.folds, how.fold)
        splits |= {"train": train, "test": test}
    train = splits["train"]
    strata, names = _strata(train, source)
    fractions = {
        "val_fraction": 0.0 if "val" in splits else how.val_fraction,
        "test_fraction": 0.0 if how.folds else how.test_fraction,
    }
    groups = groups_of(train, source, how.group_pattern)
    if groups is None:
        parts = carve(train.ids, strata, names, split_seed=how.split_seed, **fractions)
    else:
        parts = _carve_groups(groups, strata, names, split_seed=how.split_seed, **fractions)
    if len(parts) > 1:
        splits |= {split: train.take(positions) for split, positions in parts.items()}
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _carve_groups(
    groups: Sequence[str],
    targets: np.ndarray,
    classes: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
) -> dict[str, np.ndarray]:
    """As :func:`carve`, with whole groups."""
    check_fractions(val_fraction, test_fraction)
    shares = {"train": 1 - (val_fraction + test_fraction), "val": val_fraction, "test": test_fraction}
    shares = {split: share for split, share in shares.items() if share > 0}
    divided = divide_groups(groups, targets, list(shares.values()), split_seed)
    parts = dict(zip(shares, with_every_class(divided, groups, targets), strict=True))
    for split, positions in parts.items():
        if missing := _class_missing(positions, groups, targets, classes):
            raise DataError(
                f"the {split} split gets no image of {missing}; groups stay whole, so that each class needs one for "
                f"each of {', '.join(parts)}: carve fewer splits, or remove the class"
            )
    return parts


def _class_missing(
    positions: np.ndarray, groups: Sequence[str], targets: np.ndarray, classes: Sequence[str]
) -> str | None:
    """A class of which nothing is at these positions, with the number of its groups."""
    for target in np.setdiff1d(targets, targets[positions]):
        count = len({group for group, one in zip(groups, targets, strict=True) if one == target})
        return f"class {classes[target]}, whose images are in {count} group{'s' if count > 1 else ''}"
    return None


def _fold(train: Records, source: Source, how: Splitting, folds: int, fold: int) -> tuple[Records, Records]:
    """What is left for training, and the fold; each class and each group in turn goes to the folds."""
    strata, names = _strata(train, source)
    groups = groups_of(train, source, how.group_pattern)
    if groups is not None:
        if len(set(groups)) < folds:
            raise DataError(
                f"{source.name} has {len(set(groups))} groups, too few for datamodule.folds={folds}; lower it"
            )
        test = divide_groups(groups, strata, [1 / folds] * folds, how.split_seed)[fold]
        for part, positions in (("", test), ("what is left beside ", np.setdiff1d(np.arange(len(train)), test))):
            if missing := _class_missing(positions, groups, strata, names):
                raise DataError(
                    f"{part}fold {fold} of {folds} gets no image of {missing}, which stay whole; lower "
                    "datamodule.folds, or try another datamodule.split_seed for all folds"
                )
    else:
        dealt = 0
        chosen: list[int] = []
        for target, order in ranked_by_class(train.ids, strata, how.split_seed).items():
            if len(order) < folds:
                raise DataError(
                    f"class {names[target]} has {len(order)} image(s), too few for datamodule.folds={folds}; lower it"
                )
            # Where one class ends in the round the next goes on, so that the folds are of one size.
            chosen += [position for turn, position in enumerate(order, start=dealt) if turn % folds == fold]
            dealt += len(order)
        test = np.array(sorted(chosen), dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(train)), test)
    return train.take(rest), train.take(test)


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


def vtab_1k(splits: dict[str, Records], name: str, *, split_seed: int, final: bool) -> dict[str, Records]:
    """The splits under the rule of VTAB-1k: 1,000 labelled images, whatever their classes, and the whole test split.

    800 of the training split are for training and 200 of the validation split for choosing; the run that counts is
    trained on all 1,000 with what was chosen. Which images these are is drawn by the split seed, evenly over all; the
    paper takes the first ones in an order of TensorFlow Datasets, which is not to be had here.

    Reference: Zhai et al., "A Large-scale Study of Representation Learning with the Visual Task Adaptation Benchmark",
    arXiv:1910.04867, 2019, sections 2 and 3.

    Args:
        splits: of the data set, with what was carved.
        name: of the data set, for messages.
        split_seed: of the choice.
        final: train on all of them; validation then has 200 that are trained on, and says nothing.

    Raises:
        DataError: a split has too few images.
    """
    found = dict(splits)
    for split, count in (("train", _VTAB_TRAIN), ("val", _VTAB_VAL)):
        records = splits[split]
        if len(records) < count:
            raise DataError(
                f"datamodule.vtab_1k takes {count} images of the {split} split of {name}, which has {len(records)}; "
                "leave it out" + ("" if split == "train" else ", or carve more (datamodule.val_fraction)")
            )
        # Not the order that splits are carved by: the lowest of what that left would be of some classes more.
        names = [f"vtab_1k/{one}" for one in records.ids]
        order = ranked_by_class(names, np.zeros(len(records), dtype=np.int64), split_seed)[0]
        found[split] = records.take(np.array(sorted(order[:count]), dtype=np.int64))
    return {**found, "train": found["train"].plus(found["val"])} if final else found


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
