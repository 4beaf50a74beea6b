"""Stored activations of single images, found by what the images are and not by the split that they were made for."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from headstart.store.entry import IMAGES, Entry
from headstart.store.extract import Kind
from headstart.store.store import Store
from headstart.system.regular import check_regular

_log = logging.getLogger(__name__)
_SHA256 = "S32"
"""SHA-256 as NumPy compares it: two that differ in nothing but zeros at their ends do not occur."""


class StoredRows:
    """Rows of all entries that were made by one of these recipes; a context, while which nobody removes them.

    Args:
        root: of the store.
        recipes: of :func:`headstart.store.key.recipe`.
    """

    def __init__(self, root: Path, recipes: Sequence[str]) -> None:
        self._entries: list[tuple[Entry, Kind, np.ndarray, np.ndarray]] = []
        store = Store(root)
        for key in store.entries():
            meta = store.meta(key)
            if meta is None or meta.about.get("recipe") not in recipes:
                continue
            entry = store.open(key)
            if entry is None:
                continue
            names = _names(entry)
            if names is None:
                entry.close()
                continue
            order = np.argsort(names)
            self._entries.append((entry, Kind.from_dict(dict(meta.about["kind"])), names[order], order))

    def __len__(self) -> int:
        return sum(len(entry) for entry, *_ in self._entries)

    def row(self, path: str) -> Tensor | None:
        """What the network makes of the image in a file, or None where that is not stored, or there is no file."""
        try:
            check_regular(path)
            wanted = np.array(hashlib.sha256(Path(path).read_bytes()).digest(), dtype=_SHA256)
        except (OSError, ValueError):
            return None
        for entry, kind, names, order in self._entries:
            place = int(np.searchsorted(names, wanted))
            if place < len(names) and names[place] == wanted:
                return kind.from_rows(torch.from_numpy(entry.rows(order[place : place + 1])))[0]
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for entry, *_rest in self._entries:
            entry.close()


def _names(entry: Entry) -> np.ndarray | None:
    """``(N,)`` digests of the images of its rows; None where they were not noted."""
    path = entry.path / IMAGES
    if not path.exists():
        return None
    names = np.fromfile(path, dtype=_SHA256)
    if len(names) != len(entry) or hashlib.sha256(path.read_bytes()).hexdigest() != entry.meta.about.get(IMAGES):
        _log.warning("%s was altered; what it belongs to is not used", path)
        return None
    return names
