"""Near duplicates: the same picture again, resized, encoded anew, lighter or mirrored.

Every pair of pictures is compared, as gray pictures of a few pixels: first 8 by 8, which rules out nearly all, then 16
by 16 and 32 by 32. The limits are where, among photographs of clothing before plain walls (the hardest of those tried),
one pair in a million is named wrongly, and where 98 of 100 planted copies are found; a crop of a few percent is not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 32
"""Pixels of a side of the gray pictures that are compared."""

MOST_COMPARED = 20_000
"""A run compares no more images than these; the time grows with their square, and a kilobyte of each is kept."""

_LEAST = {8: 0.95, 16: 0.98, 32: 0.96}
"""Correlation from which pictures of so many pixels a side are alike."""
# Pictures without any structure are alike in nothing but that.
_LEAST_DEVIATION = 4.0
_ROWS = 256


@dataclass(frozen=True)
class NearPair:
    """Two pictures that look the same.

    Attributes:
        first: position.
        second: position, after ``first``.
        mirrored: the second is the first from left to right.
        correlation: of their gray pictures of 16 by 16 pixels, up to 1.
    """

    first: int
    second: int
    mirrored: bool
    correlation: float


def small_gray(image: Image.Image) -> np.ndarray:
    """``(SIDE, SIDE)`` unsigned bytes of a decoded image, whose sides are squeezed to one length."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0))


def alike_in(pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of the others ``(M,)`` the position of a picture that looks the same, or -1.

    Whole blocks are compared and no pair is listed, so that thousands that look the same take no longer.

    Args:
        pictures: of :func:`small_gray`, ``(N, SIDE, SIDE)``.
        others: likewise, ``(M, SIDE, SIDE)``.
    """
    found = np.full(len(others), -1)
    rough, rough_others = _rough(pictures), _rough(others)
    for turned in (others, others[:, :, ::-1]):
        coarse = _standardised(turned, min(_LEAST))
        for start in range(0, len(rough), _ROWS):
            rows, columns = rough[start : start + _ROWS], rough_others[found[rough_others] < 0]
            alike = np.ones((len(rows), len(columns)), dtype=bool)
            for side, least in _LEAST.items():
                right = coarse[columns] if side == min(_LEAST) else _standardised(turned[columns], side)
                alike &= _standardised(pictures[rows], side) @ right.T >= least
                some_row, some_column = alike.any(axis=1), alike.any(axis=0)
                rows, columns, alike = rows[some_row], columns[some_column], alike[some_row][:, some_column]
            if len(columns):
                found[columns] = rows[alike.argmax(axis=0)]
    return found


def near_pairs(pictures: np.ndarray) -> list[NearPair]:
    """Every pair that looks the same, the most alike first.

    Args:
        pictures: of :func:`small_gray`, ``(N, SIDE, SIDE)``.
    """
    rough = _rough(pictures)
    values = pictures[rough]
    upright = {side: _standardised(values, side) for side in _LEAST}
    best: dict[tuple[int, int], NearPair] = {}
    for mirrored in (False, True):
        other = {side: _standardised(values[:, :, ::-1], side) for side in _LEAST} if mirrored else upright
        for first, second in _candidates(upright[8], other[8]):
            at = {side: float(upright[side][first] @ other[side][second]) for side in (16, 32)}
            if all(at[side] >= _LEAST[side] for side in at):
                pair = NearPair(int(rough[first]), int(rough[second]), mirrored, min(at[16], 1.0))
                known = best.get((pair.first, pair.second))
                if known is None or known.correlation < pair.correlation:
                    best[pair.first, pair.second] = pair
    return sorted(best.values(), key=lambda pair: (-pair.correlation, pair.first, pair.second))


def _rough(pictures: np.ndarray) -> np.ndarray:
    """Positions of those with some structure."""
    return np.flatnonzero(pictures.std(axis=(1, 2), dtype=np.float32) >= _LEAST_DEVIATION)


def _standardised(values: np.ndarray, side: int) -> np.ndarray:
    """``(N, side * side)`` of mean 0 and length 1, so that a product of two rows is their correlation."""
    step = SIDE // side
    means = values.reshape(len(values), side, step, side, step).mean(axis=(2, 4), dtype=np.float32)
    rows = means.reshape(len(values), side * side)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _candidates(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of positions ``i < j`` that are alike at the coarsest."""
    for start in range(0, len(first), _ROWS):
        block = first[start : start + _ROWS] @ second[start:].T
        rows, columns = np.nonzero(block >= _LEAST[8])
        later = columns > rows
        yield from zip((rows[later] + start).tolist(), (columns[later] + start).tolist(), strict=True)
