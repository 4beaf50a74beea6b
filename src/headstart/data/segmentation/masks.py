"""Masks: read from files, held in memory, and checked before anything is trained on them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.folder import file_source
from headstart.data.images import DECODE_ERRORS, MAX_PIXELS, open_image, orientation, reason
from headstart.data.records import IGNORED, Source
from headstart.errors import DataError
from headstart.system.digest_memory import DigestMemory, file_digests, in_threads
from headstart.system.regular import check_regular

_READER = "mask-2"
"""Of remembered checks; raise the number when what is found in a mask changes."""
_MODES = ("P", "L", "1", "I", "I;16")
_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class FileMasks:
    """Masks in files, one an image.

    Attributes:
        paths: palette or grayscale images of class numbers.
        digests: of their contents.
        max_pixels: of a file; larger ones are refused.
    """

    paths: list[Path]
    digests: list[str]
    max_pixels: int = MAX_PIXELS

    def read(self, position: int) -> np.ndarray:
        """``(H, W)`` unsigned bytes."""
        return read_mask(self.paths[position], max_pixels=self.max_pixels)

    def take(self, positions: np.ndarray) -> "FileMasks":
        """See :meth:`headstart.data.records.Masks.take`."""
        places = [int(position) for position in positions]
        return replace(self, paths=[self.paths[p] for p in places], digests=[self.digests[p] for p in places])


@dataclass(frozen=True)
class ArrayMasks:
    """Masks in memory.

    Attributes:
        arrays: ``(N, H, W)`` unsigned bytes.
        digests: of the masks.
    """

    arrays: np.ndarray
    digests: list[str]

    def read(self, position: int) -> np.ndarray:
        """``(H, W)`` unsigned bytes."""
        mask: np.ndarray = self.arrays[position]
        return mask

    def take(self, positions: np.ndarray) -> "ArrayMasks":
        """See :meth:`headstart.data.records.Masks.take`."""
        return ArrayMasks(self.arrays[positions], [self.digests[int(position)] for position in positions])


def read_mask(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The class numbers of a palette or grayscale image, ``(H, W)`` unsigned bytes.

    Raises:
        DataError: it cannot be read, has colours instead of class numbers, or numbers below 0 or above 255.
    """
    try:
        check_regular(path)
        with open_image(path, max_pixels=max_pixels) as image:
            if image.mode not in _MODES:
                raise DataError(f"it has colours ({image.mode}); a mask is a palette or grayscale PNG of class numbers")
            values = np.asarray(image)
    except DECODE_ERRORS as error:
        raise DataError(f"{path} cannot be read as a mask: {reason(error)}") from error
    except DataError as error:
        raise DataError(f"{path} cannot be read as a mask: {error}") from error
    if odd := [int(value) for value in (values.min(initial=0), values.max(initial=0)) if not 0 <= value <= IGNORED]:
        raise DataError(f"{path} has the value {odd[0]}; class numbers are 0 to 254, and 255 does not count")
    return values.astype(np.uint8)


def mask_source(
    name: str,
    root: Path,
    listed: Sequence[tuple[str, str, str]],
    *,
    lines: Sequence[str] | None = None,
    class_names: Sequence[str] | None,
    memory_path: str | Path | None,
    max_pixels: int,
) -> Source:
    """A source of images with masks, all of them looked at once; what was found is remembered.

    Args:
        name: of the data set.
        root: of the relative paths.
        listed: ``(split, image, mask)``.
        lines: where each is listed, for messages; None: nowhere.
        class_names: in the order of their numbers; None: numbers up to the largest that occurs.
        memory_path: where checks are remembered.
        max_pixels: of an image or mask.

    Raises:
        DataError: a mask is missing, damaged, of another size than its image or has a number that is no class.
    """
    where = [f"{line}: " for line in lines] if lines is not None else [""] * len(listed)
    if missing := [place for place, (_, _, mask) in enumerate(listed) if not (root / mask).is_file()]:
        _, image, mask = listed[missing[0]]
        raise DataError(
            f"{where[missing[0]]}{image} has no mask {mask} in {root}{_more(len(missing))}; add it, or take the image "
            "out"
        )
    source = file_source(
        name,
        root,
        listed=[(split, image, place) for place, (split, image, _) in enumerate(listed)],
        classes=(),
        memory_path=memory_path,
        max_pixels=max_pixels,
    )
    masks = [root / mask for _, _, mask in listed]
    digests = file_digests(masks, memory_path)
    pairs = {
        place: (root / listed[place][1], masks[place], f"{image}/{digests[place]}")
        for records in source.splits.values()
        for place, image in zip(records.targets.tolist(), records.digests, strict=True)
    }
    looked = _looked(pairs, memory_path, max_pixels)
    top = max((max(map(int, found["counts"]), default=0) for found in looked.values()), default=0)
    classes = tuple(map(str, range(top + 1) if class_names is None else class_names))
    if len(classes) < 2:
        raise DataError(
            f"{name} has masks of {len(classes)} class(es) {list(classes)}; a segmentation needs at least two"
        )
    _check(listed, where, looked, classes)
    splits = {}
    for split, records in source.splits.items():
        places = records.targets.tolist()
        counts = np.array([[looked[p]["counts"].get(str(c), 0) for c in range(len(classes))] for p in places])
        splits[split] = replace(
            records,
            targets=shares_of(counts.reshape(len(places), len(classes))),
            masks=FileMasks([masks[p] for p in places], [digests[p] for p in places], max_pixels),
        )
    return replace(source, splits=splits, classes=classes, kind="masks")


def shares_of(counts: np.ndarray) -> np.ndarray:
    """``(N, classes)`` counts of pixels as shares of those that count, float32."""
    return (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def _looked(
    pairs: Mapping[int, tuple[Path, Path, str]], memory_path: str | Path | None, max_pixels: int
) -> dict[int, dict[str, Any]]:
    """Of each pair of image and mask their sizes and how many pixels each number has, or what is wrong.

    Args:
        pairs: with the digest of both, by which what was found is remembered.
        memory_path: where.
        max_pixels: of an image or mask.
    """
    with DigestMemory(memory_path) as memory:
        known = memory.checks([key for _, _, key in pairs.values()], _READER)
        unknown = {key: (image, mask) for image, mask, key in pairs.values() if key not in known}
        found = in_threads(lambda pair: _look(*pair, max_pixels), list(unknown.values()))
        for key, said in zip(unknown, found, strict=True):
            known[key] = json.dumps(said)
            if not said["error"]:  # which names the file
                memory.remember_check(key, _READER, known[key])
    return {place: json.loads(known[key]) for place, (_, _, key) in pairs.items()}


def _look(image: Path, mask: Path, max_pixels: int) -> dict[str, Any]:
    with open_image(image, max_pixels=max_pixels) as opened:
        turned = orientation(opened) in _TURNED
        size = opened.size[::-1] if turned else opened.size
    try:
        values = read_mask(mask, max_pixels=max_pixels)
    except DataError as error:
        return {"error": str(error), "counts": {}}
    counts = np.bincount(values.ravel(), minlength=IGNORED + 1)[:IGNORED]
    kept = {str(number): int(counts[number]) for number in np.flatnonzero(counts)}
    return {"error": "", "image": list(size), "mask": [values.shape[1], values.shape[0]], "counts": kept}


def _check(
    listed: Sequence[tuple[str, str, str]],
    where: Sequence[str],
    looked: Mapping[int, dict[str, Any]],
    classes: Sequence[str],
) -> None:
    problems = []
    for place, found in sorted(looked.items()):
        _, image, mask = listed[place]
        above = [int(number) for number in found["counts"] if int(number) >= len(classes)]
        if found["error"]:
            problems.append(f"{where[place]}{found['error']}")
        elif found["image"] != found["mask"]:
            (w, h), (width, height) = found["mask"], found["image"]
            problems.append(
                f"{where[place]}{mask} is {w} x {h} pixels and its image {image} is {width} x {height}; both must be "
                "alike"
            )
        elif above:
            problems.append(
                f"{where[place]}{mask} has the class number {max(above)}, and datamodule.class_names names "
                f"{len(classes)} classes (0 to {len(classes) - 1}; 255 does not count); correct the mask, or name all "
                "classes"
            )
    if problems:
        raise DataError(problems[0] + _more(len(problems)))


def _more(count: int) -> str:
    return f" (and {count - 1} more like it)" if count > 1 else ""
