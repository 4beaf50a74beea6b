"""The same image in two splits: found by content, refused, taken out of the training, or told."""

import logging
from collections.abc import Mapping
from typing import Literal

import numpy as np

from headstart.data.records import Records
from headstart.errors import DataError

OnLeak = Literal["error", "drop", "ignore"]

_SHOWN = 3
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
        more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
        raise DataError(
            f"{name}: some images are in two splits ({told}; same content), and scores on them would be too good: "
            f"{', '.join(pairs[:_SHOWN])}{more}. Remove them, or say datamodule.on_leak=drop (out of the training) or "
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
