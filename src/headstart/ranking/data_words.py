"""What a person should know about their images before anything is trained."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from headstart.data.datamodule import ImageDataModule
from headstart.data.images import open_image
from headstart.errors import DataError

_LOOKED_AT = 200
# A class is rare below this share of the most frequent one.
_UNEVEN = 5
_FEW = 10


def data_words(data: ImageDataModule) -> list[str]:
    """A sentence each: how many, how large, how even, what was left out, and what spoils scores."""
    return list(_sentences(data))


def _sentences(data: ImageDataModule) -> Iterator[str]:
    summary, names = data.summary(), {"train": "to train", "val": "to validate", "test": "to test"}
    sizes = ", ".join(f"{count:,} {names[split]}" for split, count in data.sizes.items())
    carved = summary["carved"]
    made = f" ({' and '.join(carved)} carved from the training images)" if carved else ""
    yield f"{data.source_name}: {sum(data.sizes.values()):,} images in {len(data.classes)} classes: {sizes}{made}."
    pixels = _pixels(data)
    if pixels is not None:
        low, middle, high = np.quantile(pixels, [0.05, 0.5, 0.95])
        yield f"The shorter side of an image is {middle:.0f} pixels (most lie between {low:.0f} and {high:.0f})."
    counts = np.bincount(data.targets("train"), minlength=len(data.classes))
    rare, common = int(counts.argmin()), int(counts.argmax())
    if counts[common] >= _UNEVEN * counts[rare]:
        yield (
            f"The classes are uneven: {data.classes[common]} has {counts[common]:,} training images and "
            f"{data.classes[rare]} {counts[rare]:,}. Accuracy mostly says how the large classes do."
        )
    if counts[rare] < _FEW:
        few = int((counts < _FEW).sum())
        yield f"{few} class(es) have fewer than {_FEW} training images; what is said about those is mostly luck."
    if summary["skipped_count"]:
        first = summary["skipped"][0]["path"]
        yield f"{summary['skipped_count']} damaged file(s) were left out, such as {first}."
    if summary["ignored"]:
        listed = ", ".join(f"{count} {suffix}" for suffix, count in summary["ignored"].items())
        yield f"Other files were left aside: {listed}."
    for pair, count in summary["shared_between_splits"].items():
        yield f"{count} image(s) are in both {pair}: scores on them are too good."


def _pixels(data: ImageDataModule) -> np.ndarray | None:
    """The shorter sides of some of the image files, from their headers; None where the images are no files."""
    images = data.records("train").images
    step = max(1, len(images) // _LOOKED_AT)
    sides = []
    for image in list(images)[::step]:
        if not isinstance(image, Path):
            return None
        try:
            with open_image(image) as opened:
                sides.append(min(opened.size))
        except (DataError, OSError):
            continue
    return np.array(sides) if sides else None
