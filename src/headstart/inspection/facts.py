"""A look at a data set before anything is trained on it: sizes, kinds of files, damage, and the same image twice."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.data.datamodule import ImageDataModule
from headstart.data.images import gray_of, open_image, orientation
from headstart.data.records import Records
from headstart.data.similar import NearPair, near_pairs, small_gray
from headstart.system.digest_memory import in_threads

FEW = 10
"""A class with fewer images in a split is told: its scores there have steps of more than ten points."""


@dataclass(frozen=True)
class Seen:
    """One image.

    Attributes:
        width: in pixels, as stored.
        height: likewise.
        kind: format and mode, such as ``JPEG RGB``.
        turned: its EXIF orientation is not upright; it is turned before it is used.
        gray: of :func:`headstart.data.similar.small_gray`.
    """

    width: int
    height: int
    kind: str
    turned: bool
    gray: np.ndarray


@dataclass(frozen=True)
class Place:
    """An image by its split and its position there."""

    split: str
    index: int


@dataclass(frozen=True)
class Pair:
    """Two images that are the same, or look so.

    Attributes:
        first: of the earlier split.
        second: of the later, or the same.
        exact: the files hold the same bytes.
        mirrored: one is the other from left to right.
        correlation: how alike they look; 1 where exact.
        same_label: whether their targets agree; two labels for one image are a mistake in one of them.
    """

    first: Place
    second: Place
    exact: bool
    mirrored: bool
    correlation: float
    same_label: bool

    @property
    def across(self) -> bool:
        """Whether they are in two splits, so that scores are too good."""
        return self.first.split != self.second.split


@dataclass(frozen=True)
class Inspection:
    """What a look at a data set found.

    Attributes:
        name: of the data set.
        classes: names; of labels or quantities, those of the columns.
        sizes: images of each split.
        counts: of each split the images of each class; empty where there are no classes.
        seen: of each split its images, as far as they were opened.
        pairs: the same image twice, across splits first, the most alike first.
        damaged: unreadable files as ``{"path", "error"}``.
        ignored: files left aside, by suffix.
        carved: splits that were carved from train.
    """

    name: str
    classes: tuple[str, ...]
    sizes: dict[str, int]
    counts: dict[str, list[int]]
    seen: dict[str, list[Seen]]
    pairs: tuple[Pair, ...]
    damaged: tuple[dict[str, str], ...]
    ignored: dict[str, int]
    carved: tuple[str, ...]

    def kinds(self) -> dict[str, int]:
        """Formats and modes, the most frequent first."""
        return dict(Counter(seen.kind for split in self.seen.values() for seen in split).most_common())

    def turned(self) -> int:
        """Images that are turned by their EXIF orientation."""
        return sum(seen.turned for split in self.seen.values() for seen in split)

    def opening(self) -> str:
        """How many images and classes, and what for, in a sentence."""
        purposes = {"train": "to train", "val": "to validate", "test": "to test"}
        sizes = ", ".join(f"{size:,} {purposes[split]}" for split, size in self.sizes.items())
        made = f" ({' and '.join(self.carved)} carved from the training images)" if self.carved else ""
        return f"{self.name}: {sum(self.sizes.values()):,} images in {len(self.classes)} classes: {sizes}{made}"

    def facts(self) -> list[str]:
        """What kind of files there are, in sentences."""
        sides, opened = self.sides(), sum(map(len, self.seen.values()))
        told = []
        if opened < sum(self.sizes.values()):
            told.append(f"{opened:,} images were opened, evenly over the splits; headstart inspect opens all")
        if len(sides):
            short, long = sides.min(axis=1), sides.max(axis=1)
            told.append(
                f"Short side {short.min()} to {short.max()} pixels (median {int(np.median(short))}), long side "
                f"{long.min()} to {long.max()} (median {int(np.median(long))})"
            )
        told.append("Files: " + ", ".join(f"{count} {kind}" for kind, count in self.kinds().items()))
        if self.turned():
            told.append(f"{self.turned()} are turned upright by their EXIF orientation")
        if self.ignored:
            told.append("Left aside: " + ", ".join(f"{count} {suffix}" for suffix, count in self.ignored.items()))
        return told

    def sides(self) -> np.ndarray:
        """``(N, 2)`` widths and heights."""
        return np.array([(seen.width, seen.height) for split in self.seen.values() for seen in split]).reshape(-1, 2)

    def warnings(self) -> list[str]:
        """What should be seen to before training, the gravest first."""
        across = [pair for pair in self.pairs if pair.across]
        exact, near = sum(pair.exact for pair in across), sum(not pair.exact for pair in across)
        other = sum(not pair.same_label for pair in self.pairs)
        few = [
            f"{name} ({count} in {split})"
            for split, counts in self.counts.items()
            for name, count in zip(self.classes, counts, strict=True)
            if count < FEW
        ]
        totals = np.sum(list(self.counts.values()), axis=0) if self.counts else np.array([])
        told = [
            (exact, f"The same image in two splits, {exact} times: scores are too good (datamodule.on_leak=drop)"),
            (near, f"Pairs that look the same in two splits: {near}; look at them, and keep each pair in one split"),
            (other, f"The same picture with different labels, {other} times: one of each pair is wrong"),
            (len(self.damaged), f"Unreadable files, which are left out: {len(self.damaged)}"),
            (len(few), f"Few images of {', '.join(few[:5])}{' ...' if len(few) > 5 else ''}"),
        ]
        if len(totals) > 1 and totals.min() * 10 < totals.max():
            rare, usual = self.classes[int(totals.argmin())], self.classes[int(totals.argmax())]
            advice = "look at balanced accuracy, and try datamodule.sampler=balanced or loss.class_weights=balanced"
            told.append(
                (1, f"Classes of very different sizes ({rare} {totals.min()}, {usual} {totals.max()}): {advice}")
            )
        return [text for count, text in told if count]


def inspect_data(data: ImageDataModule, *, most: int | None = None) -> Inspection:
    """Look at the images of a prepared data set once.

    Args:
        data: where the same image is in two splits, one that goes on (``on_leak=ignore``).
        most: images that are opened, evenly over the splits; None: all. The same file twice is found among all, and
            what looks the same among those that are opened.

    Raises:
        DataError: the data cannot be used as asked.
    """
    summary = data.summary()
    splits = {split: data.records(split) for split in data.sizes}
    step = 1 if most is None else max(1, -(-sum(data.sizes.values()) // most))
    places = [Place(split, index) for split, records in splits.items() for index in range(0, len(records), step)]
    seen = _seen(splits, places, data.max_pixels)
    return Inspection(
        name=data.source_name,
        classes=data.classes,
        sizes=data.sizes,
        counts=summary.get("class_counts", {}),
        seen={
            split: [one for one, place in zip(seen, places, strict=True) if place.split == split] for split in splits
        },
        pairs=tuple(_pairs(splits, places, seen)),
        damaged=tuple(summary["skipped"]),
        ignored=summary["ignored"],
        carved=tuple(summary["carved"]),
    )


def _seen(splits: dict[str, Records], places: Sequence[Place], max_pixels: int) -> list[Seen]:
    look = partial(_look, max_pixels=max_pixels)
    return list(in_threads(look, [splits[place.split].images[place.index] for place in places]))


def _look(image: object, *, max_pixels: int) -> Seen:
    if not isinstance(image, Path):
        pixels = np.asarray(image if isinstance(image, np.ndarray) else image.draw())  # type: ignore[attr-defined]
        picture = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)
        return Seen(picture.width, picture.height, f"pixels {picture.mode}", False, small_gray(picture))
    with open_image(image, max_pixels=max_pixels) as opened:
        width, height, kind = opened.width, opened.height, f"{opened.format} {opened.mode}"
        turned = orientation(opened) != 1
        return Seen(width, height, kind, turned, gray_of(opened))


def _pairs(splits: dict[str, Records], opened: Sequence[Place], seen: Sequence[Seen]) -> list[Pair]:
    every = [Place(split, index) for split, records in splits.items() for index in range(len(records))]
    of_content: dict[str, list[int]] = {}
    for number, place in enumerate(every):
        of_content.setdefault(_digest(splits, place), []).append(number)
    # Of many copies each is paired with the first only.
    exact = [NearPair(same[0], other, False, 1.0) for same in of_content.values() for other in same[1:]]
    near = [
        pair
        for pair in (near_pairs(np.stack([image.gray for image in seen])) if seen else [])
        if _digest(splits, opened[pair.first]) != _digest(splits, opened[pair.second])
    ]
    found = [*_told(exact, every, splits, exact=True), *_told(near, opened, splits, exact=False)]
    return sorted(found, key=lambda pair: (not pair.across, not pair.exact, -pair.correlation))


def _digest(splits: dict[str, Records], place: Place) -> str:
    return splits[place.split].digests[place.index]


def _told(near: Sequence[NearPair], places: Sequence[Place], splits: dict[str, Records], *, exact: bool) -> list[Pair]:
    pairs = []
    for pair in near:
        first, second = places[pair.first], places[pair.second]
        targets = [splits[place.split].targets[place.index] for place in (first, second)]
        same = bool(np.array_equal(*targets))
        pairs.append(Pair(first, second, exact, pair.mirrored, pair.correlation, same))
    return pairs
