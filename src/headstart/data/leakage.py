"""What must not be in two splits: images that belong together (of one patient, scene or video), and the same image."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.data.images import GRAY
from headstart.data.records import Records, Source, content_of
from headstart.data.similar import MOST_COMPARED, SIDE, alike_in
from headstart.errors import DataError
from headstart.system.digest_memory import DigestMemory
from headstart.system.names import some

OnLeak = Literal["error", "drop", "ignore"]

_NEAR = f"{GRAY}-pairs"

_log = logging.getLogger(__name__)


def shared_content(splits: Mapping[str, Records]) -> dict[str, list[tuple[str, str]]]:
    """For each pair of splits the images of the second that are in the first, by content, with an image there."""
    where = {split: dict(zip(records.digests, records.ids, strict=True)) for split, records in splits.items()}
    names = list(splits)
    return {
        f"{first} and {second}": [
            (where[first][digest], name)
            for name, digest in zip(splits[second].ids, splits[second].digests, strict=True)
            if digest in where[first]
        ]
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    }


def without_leaks(
    splits: Mapping[str, Records], name: str, on_leak: OnLeak
) -> tuple[dict[str, Records], dict[str, int]]:
    """What to do about images that are in two splits.

    Args:
        splits: of the data set.
        name: of the data set.
        on_leak: ``error``; ``drop`` leaves them out of train, then of val, so that the scored images stay as they are;
            ``ignore`` only warns.

    Returns: the splits, and for each pair how many images of the second were in the first.

    Raises:
        DataError: with ``error``, naming pairs.
    """
    shared = shared_content(splits)
    counts = {pair: len(found) for pair, found in shared.items() if found}
    if not counts:
        return dict(splits), {}
    told = ", ".join(f"{count} in {pair}" for pair, count in counts.items())
    if on_leak == "error":
        pairs = [f"{first} = {second}" for found in shared.values() for first, second in found]
        raise DataError(
            f"{name}: some images are in two splits ({told}; same content), and scores on them would be too good: "
            f"{some(pairs)}. Remove them, or say datamodule.on_leak=drop (out of the training) or "
            "datamodule.on_leak=ignore."
        )
    if on_leak == "ignore":
        _log.warning("some images are in two splits (same content): %s; scores on them are too good", told)
        return dict(splits), counts
    kept, seen = {}, set[str]()
    for split in sorted(splits, key=("test", "val", "train").index):
        records = splits[split]
        stay = np.array([place for place, digest in enumerate(records.digests) if digest not in seen], dtype=np.int64)
        kept[split] = records.take(stay) if len(stay) < len(records) else records
        seen |= set(records.digests)
    _log.warning("images that are in two splits were left out of the training: %s", told)
    return {split: kept[split] for split in splits}, counts


def near_duplicates(splits: Mapping[str, Records], memory_path: str | Path | None) -> dict[str, int] | None:
    """Warn of images that look like one of an earlier split, such as resized, encoded anew or mirrored ones.

    Nothing is decoded for it: the pass that finds damaged files left a small picture of each in the memory, and what is
    found goes there too.

    Args:
        splits: of the run.
        memory_path: where pictures are remembered.

    Returns: for each pair of splits how many images of the second look like one in the first that is not the same file;
        None where they were not compared, since they are no image files or more than ``MOST_COMPARED``.
    """
    if sum(map(len, splits.values())) > MOST_COMPARED or any(records.decoded for records in splits.values()):
        return None
    key = content_of(splits)
    with DigestMemory(memory_path) as memory:
        known = memory.checks([key], _NEAR).get(key)
        if known is None:
            digests = [digest for records in splits.values() for digest in records.digests]
            pictures = memory.pictures(digests, GRAY)
            if not pictures.keys() >= set(digests):
                return None
            known = json.dumps(_alike(splits, pictures))
            memory.remember_check(key, _NEAR, known)
    found: dict[str, list[list[str]]] = json.loads(known)
    counts = {pair: len(names) for pair, names in found.items()}
    if counts:
        _log.warning(
            "some images look like one in another split: %s (%s); if they are the same pictures, scores on them are "
            "too good. Look at them with headstart inspect, and keep each pair in one split or take one of it out",
            ", ".join(f"{count} in {pair}" for pair, count in counts.items()),
            some(f"{first} = {second}" for names in found.values() for first, second in names),
        )
    return counts


def _alike(splits: Mapping[str, Records], pictures: Mapping[str, bytes]) -> dict[str, list[tuple[str, str]]]:
    """For each pair of splits the images of the second that look like one in the first, with that one before it."""
    grays = {
        split: np.frombuffer(b"".join(pictures[digest] for digest in records.digests), np.uint8).reshape(-1, SIDE, SIDE)
        for split, records in splits.items()
    }
    found = {}
    for first, second in combinations(splits, 2):
        exact = set(splits[first].digests)
        names = [
            (splits[first].ids[position], splits[second].ids[place])
            for place, position in enumerate(alike_in(grays[first], grays[second]).tolist())
            if position >= 0 and splits[second].digests[place] not in exact
        ]
        if names:
            found[f"{first} and {second}"] = names
    return found


def groups_of(records: Records, source: Source, pattern: str | None) -> list[str] | None:
    """The group of each image, by the source or by a pattern in its name; None where there are none.

    Raises:
        DataError: the pattern is none, or does not match a name.
    """
    if pattern is None:
        return None if source.groups is None else [source.groups[name] for name in records.ids]
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"datamodule.group_pattern={pattern} is no regular expression: {error}") from None
    found = [expression.search(name) for name in records.ids]
    missing = [name for name, match in zip(records.ids, found, strict=True) if match is None]
    if missing:
        raise DataError(
            f"datamodule.group_pattern={pattern} matches {len(missing)} of {len(found)} names not, such as "
            f"{', '.join(missing[:3])}; every image needs a group"
        )
    return ["/".join(match.groups(default="")) or match.group() for match in found if match is not None]


def check_apart(splits: Mapping[str, Records], source: Source, pattern: str | None) -> None:
    """No group in two splits.

    Raises:
        DataError: names some that are.
    """
    of_split = {
        split: dict(zip(groups_of(records, source, pattern) or (), records.ids, strict=False))
        for split, records in splits.items()
    }
    names = list(of_split)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            if both := sorted(of_split[first].keys() & of_split[second].keys()):
                one, other = (source.shown(of_split[split][both[0]]) for split in (first, second))
                raise DataError(
                    f"{source.name}: the groups {some(both)} have images in {first} and in "
                    f"{second}, such as {one} and {other}, so that scores on {second} would be too good; put each into "
                    "one split, or leave the splits to datamodule.val_fraction and datamodule.test_fraction"
                )


def divide_groups(
    groups: Sequence[str], targets: np.ndarray, shares: Sequence[float], split_seed: int
) -> list[np.ndarray]:
    """Divide images so that groups stay whole and each part has its share of every class, as nearly as can be.

    Greedy, the largest groups first, each to the part after which the classes are spread most evenly: the standard
    deviation over the parts of how full each is of each class, averaged over the classes, as scikit-learn's
    ``StratifiedGroupKFold`` has it for equal shares. Groups of one size follow a digest of ``split_seed`` and name.

    Args:
        groups: of each image, ``(N,)``.
        targets: class positions, ``(N,)``.
        shares: of the parts; they sum to 1.
        split_seed: another seed gives another division.

    Returns: the sorted positions of each part.
    """
    names, member, counts = _counted(groups, targets)
    keys = [hashlib.sha256(f"{split_seed}/{name}".encode("utf-8", "surrogateescape")).digest() for name in names]
    order = sorted(range(len(names)), key=lambda place: (-counts[place].sum(), keys[place]))
    room = np.asarray(shares)[:, None] * counts.sum(axis=0)  # (parts, classes)
    filled = np.zeros_like(room)
    part_of = np.zeros(len(names), dtype=np.int64)
    for place in order:
        costs = []
        for part in range(len(shares)):
            tried = filled.copy()
            tried[part] += counts[place]
            costs.append((round(float((tried / room).std(axis=0).mean()), 12), float((tried[part] / room[part]).max())))
        part_of[place] = min(range(len(shares)), key=costs.__getitem__)
        filled[part_of[place]] += counts[place]
    return [np.flatnonzero(part_of[member] == part) for part in range(len(shares))]


def with_every_class(parts: Sequence[np.ndarray], groups: Sequence[str], targets: np.ndarray) -> list[np.ndarray]:
    """The parts of :func:`divide_groups`, after single groups went to parts that have nothing of a class.

    The smallest group goes of those whose classes its own part has in other groups too; without one, the part stays so.
    """
    _, member, counts = _counted(groups, targets)
    has = counts > 0
    part_of = np.zeros(len(has), dtype=np.int64)
    for number, part in enumerate(parts):
        part_of[member[part]] = number
    for rare in np.argsort(has.sum(axis=0), kind="stable"):
        for number in range(len(parts)):
            groups_in = np.stack([has[part_of == part].sum(axis=0) for part in range(len(parts))])
            spare = np.flatnonzero(has[:, rare] & ((groups_in[part_of] > 1) | ~has).all(axis=1))
            if groups_in[number, rare] == 0 and len(spare):
                part_of[spare[counts[spare].sum(axis=1).argmin()]] = number
    return [np.flatnonzero(part_of[member] == number) for number in range(len(parts))]


def _counted(groups: Sequence[str], targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of the groups, the group of each image, and ``(groups, classes)`` images."""
    names, member = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    classes, column = np.unique(targets, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (member, column), 1)
    return names, member, counts
