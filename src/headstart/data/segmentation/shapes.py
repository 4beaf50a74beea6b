"""Shapes on textures, drawn from random numbers: a segmentation that needs no files."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageDraw

from headstart.data.datamodule import ImageDataModule
from headstart.data.records import IGNORED, Records, Source
from headstart.data.segmentation.masks import ArrayMasks, shares_of
from headstart.errors import DataError
from headstart.system.options import AtLeast, AtMost, Below, checked

CLASSES = ("background", "disc", "square", "triangle")

# Mean hue of each shape in turns; its spread makes colours overlap, so that colour alone does not tell.
_HUES, _SPREAD = (0.0, 0.33, 0.66), 0.09
_LARGEST = 3


class Shapes(ImageDataModule):
    """Discs, squares and triangles on gray textures; pixels on an edge do not count (255).

    Tree: none, an image is a function of ``data_seed`` and its number. Licence: none needed. Each kind of shape has
    colours of its own that overlap with the others', and each shape a texture.

    Args:
        images: how many are drawn.
        data_seed: of the drawing.
        size: rows and columns of the images as they are drawn.
        test_fraction: share carved for testing.
        **choices: those of :class:`ImageDataModule`.
    """

    @checked("datamodule", DataError)
    def __init__(
        self,
        *,
        images: Annotated[int, AtLeast(10)] = 200,
        data_seed: Annotated[int, AtLeast(0)] = 0,
        size: Annotated[int, AtLeast(32), AtMost(4096)] = 64,
        test_fraction: Annotated[float, AtLeast(0), Below(1)] = 0.2,
        **choices: Any,
    ) -> None:
        super().__init__(test_fraction=test_fraction, **choices)
        self.images, self.data_seed, self.size = images, data_seed, size

    def load(self) -> Source:
        """All images as one split."""
        drawn = [draw(self.data_seed, number, self.size) for number in range(self.images)]
        images, masks = (np.stack(column) for column in zip(*drawn, strict=True))
        counts = np.stack([np.bincount(mask.ravel(), minlength=IGNORED + 1)[: len(CLASSES)] for mask in masks])
        width = len(str(self.images - 1))
        records = Records(
            images,
            shares_of(counts),
            [f"shapes/{number:0{width}d}" for number in range(self.images)],
            [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
            ArrayMasks(masks, [hashlib.sha256(mask.tobytes()).hexdigest() for mask in masks]),
        )
        return Source("shapes", {"train": records}, CLASSES, records.content_digest, kind="masks")

    def find(self, ids: Collection[str]) -> dict[str, "Drawing"]:
        """Those of the images that are named, by their ids; the others are not drawn."""
        places = {name: re.fullmatch(r"shapes/(\d+)", name) for name in ids}
        return {name: Drawing(self.data_seed, int(place[1]), self.size) for name, place in places.items() if place}


@dataclass(frozen=True)
class Drawing:
    """One image.

    Attributes:
        data_seed: of the drawing.
        number: of the image.
        size: rows and columns.
    """

    data_seed: int
    number: int
    size: int

    def draw(self) -> np.ndarray:
        """``(size, size, 3)`` unsigned bytes."""
        return draw(self.data_seed, self.number, self.size)[0]


def draw(data_seed: int, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One image ``(size, size, 3)`` and its mask ``(size, size)``, unsigned bytes."""
    rng = np.random.default_rng([data_seed, number])
    image = np.full((size, size, 3), rng.uniform(0.3, 0.7)) + 0.25 * _texture(rng, size)[..., None]
    mask = np.zeros((size, size), dtype=np.uint8)
    for _ in range(int(rng.integers(1, _LARGEST + 1))):
        kind = int(rng.integers(1, len(CLASSES)))
        plane = Image.new("L", (size, size), 0)
        _outline(ImageDraw.Draw(plane), kind, rng, size)
        inside = np.asarray(plane)
        colour = _colour((_HUES[kind - 1] + rng.normal(0, _SPREAD)) % 1.0, rng.uniform(0.5, 0.9))
        image = np.where(inside[..., None] > 0, colour * (0.8 + 0.3 * _texture(rng, size)[..., None]), image)
        mask = np.where(inside > 0, inside, mask).astype(np.uint8)
    image = image + rng.normal(0, 0.04, image.shape)
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8), mask


def _outline(canvas: ImageDraw.ImageDraw, kind: int, rng: np.random.Generator, size: int) -> None:
    """A shape of this class with an edge that does not count."""
    radius = rng.uniform(0.13, 0.25) * size
    x, y = rng.uniform(radius, size - radius, 2)
    if kind == 1:
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=kind, outline=IGNORED)
        return
    corners = 4 if kind == 2 else 3
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(corners) / corners
    points = [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for angle in angles]
    canvas.polygon(points, fill=kind, outline=IGNORED)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """``(size, size)`` between -1 and 1: two gratings of random direction and width."""
    rows, columns = np.mgrid[:size, :size] / size
    waves = []
    for _ in range(2):
        angle, waves_across, phase = rng.uniform(0, np.pi), rng.uniform(3, 12), rng.uniform(0, 2 * np.pi)
        along = rows * np.sin(angle) + columns * np.cos(angle)
        waves.append(np.sin(2 * np.pi * waves_across * along + phase))
    mean: np.ndarray = np.mean(waves, axis=0)
    return mean


def _colour(hue: float, value: float) -> np.ndarray:
    """Red, green and blue of a hue in turns, saturated by 0.7."""
    wheel = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    colour: np.ndarray = value * (0.3 + 0.7 * wheel)
    return colour
