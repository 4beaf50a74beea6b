"""The same picture again, and pictures that are not."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from headstart.data import similar
from headstart.data.similar import alike_in, near_pairs, small_gray


def photograph(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Random blobs of colour on a random gradient: structure at every scale, no two alike."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (8, 6))
    picture.putdata([tuple(int(v) for v in row) for row in rng.integers(0, 256, (48, 3))])
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    fine = Image.effect_noise(size, 40).filter(ImageFilter.GaussianBlur(2)).convert("RGB")
    return Image.blend(picture, fine, 0.25)


def encoded(image: Image.Image, **choices: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, **choices)  # type: ignore[arg-type]
    return Image.open(io.BytesIO(file.getvalue()))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded anew": lambda image: encoded(image, format="JPEG", quality=40),
    "half the size": lambda image: image.resize((60, 45)),
    "twice the size": lambda image: image.resize((240, 180), Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
    "mirrored, smaller and encoded": lambda image: encoded(ImageOps.mirror(image).resize((80, 60)), format="WEBP"),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.15))),
    "gray": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_found_and_nothing_else(name: str):
    images = [photograph(seed) for seed in range(40)]
    copies = [COPIES[name](image) for image in images[:10]]
    pairs = near_pairs(np.stack([small_gray(image) for image in (*images, *copies)]))
    assert {(pair.first, pair.second) for pair in pairs} == {(place, 40 + place) for place in range(10)}
    assert {pair.mirrored for pair in pairs} == {name.startswith("mirrored")}


def test_pictures_without_structure_and_few_pictures_are_no_pairs():
    flat = np.stack([np.full((32, 32), value, dtype=np.uint8) for value in (0, 0, 120, 255)])
    assert near_pairs(flat) == []
    assert near_pairs(flat[:1]) == []
    assert near_pairs(flat[:0]) == []


def test_the_most_alike_come_first():
    image = photograph(1)
    worse = encoded(image.resize((40, 30)), format="JPEG", quality=30)
    pairs = near_pairs(np.stack([small_gray(picture) for picture in (image, worse, image)]))
    assert (pairs[0].first, pairs[0].second) == (0, 2)
    assert pairs[0].correlation == pytest.approx(1.0, abs=1e-5)


def test_of_two_sets_those_are_found_that_are_among_all_pairs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(similar, "_ROWS", 7)
    flat = Image.new("RGB", (120, 90), "gray")
    images = [*(photograph(seed) for seed in range(30)), flat]
    others = [flat, *(copy(images[3 * place]) for place, copy in enumerate(COPIES.values())), photograph(99)]
    first, second = (np.stack([small_gray(image) for image in part]) for part in (images, others))
    pairs = near_pairs(np.concatenate((first, second)))
    wanted = [-1] * len(others)
    for pair in pairs:
        wanted[pair.second - len(images)] = pair.first
    assert alike_in(first, second).tolist() == wanted == [-1, *range(0, 3 * len(COPIES), 3), -1]
    assert alike_in(first, second[:0]).tolist() == alike_in(first[:0], second[:0]).tolist() == []
    # Of many that look the same each has one.
    same = np.repeat(first[:1], 20, axis=0)
    assert alike_in(same, same).tolist() == [0] * 20
