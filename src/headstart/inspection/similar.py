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

_LEAST = {8: 0.95, 16: 0.98, 32: 0.96}
"""Correlation from which pictures of so many pixels a side are alike."""
# Pictures without any structure are alike in nothing but that.
_LEAST_DEVIATION = 4.0
_ROWS = 1024


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


def near_pairs(pictures: np.ndarray) -> list[NearPair]:
    """Every pair that looks the same, the most alike first.

    Args:
        pictures: of :func:`small_gray`, ``(N, SIDE, SIDE)``.
    """
    values = pictures.astype(np.float32)
    rough = np.flatnonzero(values.std(axis=(1, 2)) >= _LEAST_DEVIATION)
    values = values[rough]
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


def _standardised(values: np.ndarray, side: int) -> np.ndarray:
    """``(N, side * side)`` of mean 0 and length 1, so that a product of two rows is their correlation."""
    step = SIDE // side
    rows = values.reshape(len(values), side, step, side, step).mean(axis=(2, 4)).reshape(len(values), side * side)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _candidates(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of positions ``i < j`` that are alike at the coarsest."""
    for start in range(0, len(first), _ROWS):
        block = first[start : start + _ROWS] @ second[start:].T
        rows, columns = np.nonzero(block >= _LEAST[8])
        later = columns > rows
        yield from zip((rows[later] + start).tolist(), (columns[later] + start).tolist(), strict=True)
