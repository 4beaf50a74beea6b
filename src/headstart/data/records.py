"""Labelled images as plain arrays and lists, before any tensor."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from headstart.system.digest_memory import combined_digest


class Drawn(Protocol):
    """An image that is computed when it is asked for."""

    def draw(self) -> np.ndarray:
        """``(H, W, C)`` unsigned bytes, always the same."""


IGNORED = 255
"""In a mask, the number of pixels that neither teach nor count."""

Images = Sequence[Path] | Sequence[Drawn] | Sequence[np.ndarray] | np.ndarray


class Masks(Protocol):
    """A class number for every pixel, of each image."""

    @property
    def digests(self) -> list[str]:
        """Of each mask's content."""

    def read(self, position: int) -> np.ndarray:
        """``(H, W)`` unsigned bytes: class numbers, 255 where a pixel does not count."""

    def take(self, positions: np.ndarray) -> "Masks":
        """The masks at these positions, in that order."""


@dataclass(frozen=True)
class Records:
    """Images with their labels, in a fixed order; a position in it is the ``index`` of a batch.

    Attributes:
        images: paths of files, images that are drawn, or unsigned bytes: ``(N, H, W, C)``, or ``(H, W, C)`` each.
        targets: class positions ``(N,)``; labels or numbers ``(N, columns)`` float32; of masks each class's share of
            the pixels.
        ids: one stable name an image: the path relative to the data's root, or such as ``digits/0123``.
        digests: SHA-256 of each image's content.
        masks: of each image, where there are such.
    """

    images: Images
    targets: np.ndarray
    ids: list[str]
    digests: list[str]
    masks: Masks | None = None

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.targets) == len(self.ids) == len(self.digests):
            raise ValueError("images, targets, ids and digests must have one entry an image")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def decoded(self) -> bool:
        """Whether the images are pixels already."""
        return len(self) > 0 and isinstance(self.images[0], np.ndarray)

    @cached_property
    def content_digest(self) -> str:
        """Digest of ids, class positions (or masks) and contents, whatever the order."""
        said = self.masks.digests if self.masks is not None else map(_target_text, self.targets)
        return combined_digest(
            sorted(
                (f"{name}={target}", digest) for name, target, digest in zip(self.ids, said, self.digests, strict=True)
            )
        )

    def take(self, positions: np.ndarray) -> "Records":
        """The records at these positions, in that order; an image stays where it is, in memory or on disk."""
        # A plain view of an image takes a third of the memory of one that knows its file.
        images = np.asarray(self.images) if isinstance(self.images, np.ndarray) else self.images
        return Records(
            [images[position] for position in positions],
            self.targets[positions],
            [self.ids[position] for position in positions],
            [self.digests[position] for position in positions],
            None if self.masks is None else self.masks.take(positions),
        )

    def plus(self, other: "Records") -> "Records":
        """These and others, without masks."""
        return Records(
            [*self.images, *other.images],
            np.concatenate((self.targets, other.targets)),
            [*self.ids, *other.ids],
            [*self.digests, *other.digests],
        )


@dataclass(frozen=True)
class Source:
    """What a data set holds before fractions and shots are applied.

    Attributes:
        name: of the data set.
        splits: ``train`` and, where the data set has them, ``val`` and ``test``.
        classes: names in the order of the targets; of labels or quantities, in the order of the columns.
        content_digest: of all images with their ids.
        ignored: how many files were left aside, by suffix.
        bad: unreadable images as ``{"path", "error"}``; they are in no split.
        notes: other facts worth recording.
        kind: of the targets: one class an image, any number of labels, numbers, or a class for every pixel.
        groups: of each image by its id, where the data set says which belong together.
        places: where each image is listed (``line 2``) by its id, for messages; empty: nowhere.
    """

    name: str
    splits: dict[str, Records]
    classes: tuple[str, ...]
    content_digest: str
    ignored: dict[str, int] = field(default_factory=dict)
    bad: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)
    kind: Literal["classes", "labels", "values", "masks"] = "classes"
    groups: Mapping[str, str] | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    def shown(self, name: str) -> str:
        """The id of an image with its place, for messages."""
        return f"{name} ({self.places[name]})" if name in self.places else name


def content_of(splits: Mapping[str, Records]) -> str:
    """Digest of every image and target, and of the split that each is in."""
    return combined_digest((split, records.content_digest) for split, records in splits.items())


def _target_text(target: np.ndarray) -> str:
    """A class position, or the numbers of a row, alike in every version of NumPy."""
    return ",".join(repr(float(value)) for value in target) if np.ndim(target) else str(int(target))


def array_records(images: np.ndarray, targets: np.ndarray, prefix: str) -> Records:
    """Records of ``(N, H, W, C)`` bytes, named ``prefix/0000`` and so on."""
    width = len(str(max(len(images) - 1, 0)))
    return Records(
        images,
        targets,
        [f"{prefix}/{position:0{width}d}" for position in range(len(images))],
        [hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest() for image in images],
    )
