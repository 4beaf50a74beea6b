"""Labelled fractals, drawn when they are asked for: images to pretrain on where there are none."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from torch.utils.data import get_worker_info

from headstart.data.datamodule import ImageDataModule
from headstart.data.records import Records, Source
from headstart.errors import DataError
from headstart.system.options import AtLeast, AtMost, checked

VERSION = 2
"""Of the drawing; raise it when the same numbers give other pixels, so that no digest stands for two images."""

_WALKERS, _STEPS, _FORGOTTEN = 1000, 40, 20
_TRIES = 50
# Drawn images are remembered up to this size, by all workers together; what Python keeps of each one comes on top.
_REMEMBERED_BYTES, _BYTES_BESIDE = 256 * 2**20, 1024


class Fractals(ImageDataModule):
    """Attractors of random iterated function systems: each class is a system, each image a variation of it.

    Tree: none, nothing is stored; an image is a function of ``data_seed``, its class and its number. Licence: none
    needed. References: Kataoka et al., "Pre-training without Natural Images", ACCV 2020 (systems as classes, their
    parameters varied within a class); Anderson and Farrell, "Improving Fractal Pre-training", WACV 2022, section 3
    (systems sampled by their singular values, so that nearly all are worth looking at; colour and background).

    Args:
        categories: number of classes.
        per_category: images of each class, those for validation included.
        data_seed: of the systems; another one gives other classes.
        size: rows and columns of the images as they are drawn.
        **choices: those of :class:`ImageDataModule`.
    """

    @checked("datamodule", DataError)
    def __init__(
        self,
        *,
        categories: Annotated[int, AtLeast(2)] = 100,
        per_category: Annotated[int, AtLeast(2)] = 200,
        data_seed: Annotated[int, AtLeast(0)] = 0,
        size: Annotated[int, AtLeast(8), AtMost(4096)] = 64,
        **choices: Any,
    ) -> None:
        super().__init__(**choices)
        self.categories, self.per_category = categories, per_category
        self.data_seed, self.size = data_seed, size

    def load(self) -> Source:
        """Name all images; none is drawn yet."""
        images = [
            Fractal(self.data_seed, category, number, self.size)
            for category in range(self.categories)
            for number in range(self.per_category)
        ]
        width = len(str(self.categories - 1))
        records = Records(
            images,
            np.repeat(np.arange(self.categories, dtype=np.int64), self.per_category),
            [f"fractals/{image.category:0{width}d}/{image.number}" for image in images],
            [image.digest for image in images],
        )
        return Source(
            name="fractals",
            splits={"train": records},
            classes=tuple(f"system{category:0{width}d}" for category in range(self.categories)),
            content_digest=records.content_digest,
        )

    def find(self, ids: Collection[str]) -> dict[str, "Fractal"]:
        """Those of the images that are named, by their ids; the others are not made."""
        places = {name: re.fullmatch(r"fractals/(\d+)/(\d+)", name) for name in ids}
        return {
            name: Fractal(self.data_seed, int(place[1]), int(place[2]), self.size)
            for name, place in places.items()
            if place
        }


@dataclass(frozen=True)
class Fractal:
    """One image.

    Attributes:
        data_seed: of the systems.
        category: the system.
        number: of the variation.
        size: rows and columns.
    """

    data_seed: int
    category: int
    number: int
    size: int

    @property
    def digest(self) -> str:
        """Of what decides its pixels."""
        parts = (VERSION, self.data_seed, self.category, self.number, self.size)
        return hashlib.sha256("/".join(map(str, ("fractal", *parts))).encode()).hexdigest()

    def draw(self) -> np.ndarray:
        """``(size, size, 3)`` unsigned bytes, read-only; those asked for last are remembered."""
        worker = get_worker_info()
        return _remembering(self.size, worker.num_workers if worker else 1)(self)

    def draw_anew(self) -> np.ndarray:
        """The same, computed."""
        rng = np.random.default_rng([self.data_seed, self.category, 1, self.number])
        for maps in _variations(system(self.data_seed, self.category), rng):
            points = attractor(maps, rng)
            if points is not None:
                break
        pixels = _painted(_density(_turned(points, rng), self.size), rng)
        pixels.flags.writeable = False
        return pixels


@lru_cache(maxsize=2)
def _remembering(size: int, workers: int) -> Callable[[Fractal], np.ndarray]:
    """Drawing of images of this size that remembers as many as a worker's share of the memory holds."""
    return lru_cache(maxsize=_REMEMBERED_BYTES // workers // (3 * size**2 + _BYTES_BESIDE))(Fractal.draw_anew)


@lru_cache(maxsize=4096)
def system(data_seed: int, category: int) -> np.ndarray:
    """The affine maps ``(N, 2, 3)`` of a class, N from 2 to 4, whose attractor fills some of the plane.

    Anderson and Farrell's eq. 3: each map is ``R(t) diag(s1, s2) R(p) diag(d1, d2)`` with signs ``d``, and the sum of
    ``s1 + 2 s2`` over the maps lies in ``[(5 + N) / 2, (6 + N) / 2]``: below, attractors are dust, above, blobs.
    """
    rng = np.random.default_rng([data_seed, category, 0])
    for _ in range(_TRIES):
        count = int(rng.integers(2, 5))
        maps = np.stack([_affine(sigma, rng) for sigma in _singular_values(count, rng)])
        points = attractor(maps, rng)
        if points is not None and (_density(points, 32) > 0).mean() > 0.1:
            break
    return maps


def attractor(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Points ``(2, P)`` of the attractor by the chaos game, from many walkers at once; None where it runs away.

    A map is chosen with a probability in proportion to the area it keeps.
    """
    areas = np.abs(maps[:, 0, 0] * maps[:, 1, 1] - maps[:, 0, 1] * maps[:, 1, 0]) + 1e-3
    bounds = (np.cumsum(areas) / areas.sum())[:-1].astype(np.float32)
    drawn = rng.random((_STEPS, _WALKERS), dtype=np.float32)
    chosen = (drawn >= bounds[:, None, None]).sum(axis=0, dtype=np.intp)
    numbers = maps.reshape(-1, 6).astype(np.float32).T.take(chosen, axis=1)
    x, y, found = np.float32(0), np.float32(0), np.empty((2, _STEPS, _WALKERS), dtype=np.float32)
    for step in range(_STEPS):
        a, b, e, c, d, f = numbers[:, step]
        x, y = a * x + b * y + e, c * x + d * y + f
        found[0, step], found[1, step] = x, y
    points: np.ndarray = found[:, _FORGOTTEN:].reshape(2, -1)
    spread = points.max(axis=1) - points.min(axis=1)  # not finite where a point is not
    return points if spread.min() > 1e-3 and spread.max() < 1e3 else None


def _singular_values(count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Pairs ``s1 >= s2`` below 1 whose sum of ``s1 + 2 s2`` is where good systems are; by rejection."""
    low, high = (5 + count) / 2, (6 + count) / 2
    while True:
        pairs = np.sort(rng.uniform(0, 1, (256, count, 2)), axis=2)[:, :, ::-1]
        total = pairs[:, :, 0].sum(axis=1) + 2 * pairs[:, :, 1].sum(axis=1)
        good = np.flatnonzero((total >= low) & (total <= high))
        if len(good):
            return [(float(first), float(second)) for first, second in pairs[good[0]]]


def _affine(sigma: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    first, second = rng.uniform(-np.pi, np.pi, 2)
    signs = rng.choice([-1.0, 1.0], 2)
    linear = _rotation(first) @ np.diag(sigma) @ _rotation(second) @ np.diag(signs)
    return np.column_stack([linear, rng.uniform(-1, 1, 2)])


def _variations(maps: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The system with its numbers changed by up to a fifth, less and less where that runs away; at last as it is."""
    for spread in (0.2, 0.1, 0.05):
        yield maps * rng.uniform(1 - spread, 1 + spread, maps.shape)
    yield maps


def _turned(points: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Mirrored and turned by up to a sixth of a full turn; its class stays recognisable."""
    if points is None:
        return np.zeros((2, 1))
    side = np.array([[rng.choice([-1.0, 1.0])], [1.0]])
    linear = _rotation(rng.uniform(-np.pi / 6, np.pi / 6)) * side.T
    turned: np.ndarray = linear.astype(points.dtype) @ points
    return turned


def _density(points: np.ndarray, size: int) -> np.ndarray:
    """How often each pixel is hit, from 0 to 1 on a logarithmic scale: ``(size, size)``."""
    low, high = np.percentile(points[:, :: max(1, points.shape[1] // 2000)], (1, 99), axis=1)
    scale = 0.9 * size / max(float((high - low).max()), 1e-9)
    shift = size / 2 - (low + high) / 2 * scale
    column, row = np.floor(points * np.float32(scale) + shift[:, None].astype(np.float32)).astype(np.int32)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    hits = np.bincount((row * size + column)[inside], minlength=size * size).reshape(size, size)
    levels: np.ndarray = np.log1p(hits) / np.log1p(max(int(hits.max()), 1))
    return levels


def _painted(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One colour on a background of another that is well apart from it in brightness."""
    ink, ground = rng.uniform(0.5, 1.0, 3), rng.uniform(0.0, 0.3, 3)
    if rng.random() < 0.5:
        ink, ground = ground, ink
    mixed = ground + (ink - ground) * np.sqrt(levels)[..., None]
    return np.round(255 * mixed).astype(np.uint8)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
