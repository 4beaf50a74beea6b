"""Augmentation of batches: what is drawn, where it reads, and that a batch is its images one by one."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates

from headstart.data import InputSpec
from headstart.data.affine import DRAWS, AffineAugment, all_draws, draws
from headstart.data.transforms import EvalTransform

PLAIN = InputSpec(height=12, width=9, mean=(0.0,) * 3, std=(1.0,) * 3)


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def rows(augment: AffineAugment, *images: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.stack([augment.keep(image) for image in images]))


def test_the_numbers_of_an_image_are_those_of_its_epoch():
    table = all_draws(3, 2, 50)
    assert table.shape == (50, DRAWS)
    assert all(np.array_equal(draws(3, 2, position), table[position]) for position in (0, 1, 7, 49))
    assert not np.array_equal(all_draws(3, 3, 50), table)
    assert not np.array_equal(all_draws(4, 2, 50), table)
    assert abs(table.mean() - 0.5) < 0.05


@pytest.mark.parametrize("crop", [0.5, None], ids=["light", "keras"])
def test_a_batch_is_its_images_one_by_one(crop: float | None):
    augment = AffineAugment(PLAIN, crop=crop, flip=True, shear_range=10, zoom_range=0.2)
    images, numbers = [photo(20 + n, 30 - n, n) for n in range(6)], all_draws(1, 0, 6)
    together = augment(rows(augment, *images), numbers)
    assert together.shape == (6, 3, 12, 9)
    for image, number, one in zip(images, numbers, together, strict=True):
        assert torch.equal(augment(rows(augment, image), number[None])[0], one)


@pytest.mark.parametrize("size", [(40, 40), (30, 60), (90, 24), (200, 20)])
def test_crops_have_the_area_and_ratio_they_should(size: tuple[int, int]):
    height, width = size
    augment = AffineAugment(PLAIN, crop=0.4, flip=False)
    maps = augment.maps(torch.from_numpy(all_draws(0, 0, 4000)), torch.full((4000,), width / height)).double().numpy()
    wide, high = maps[:, 0, 0], maps[:, 1, 1]
    assert (np.abs(maps[:, 0, 2]) <= 1 - wide + 1e-6).all()
    assert (np.abs(maps[:, 1, 2]) <= 1 - high + 1e-6).all()
    ratio, area = wide * width / (high * height), wide * high
    fitting = min(1.0, 4 / 3 * height / width, 4 / 3 * width / height)  # of the largest crop with an allowed ratio
    assert area.max() <= fitting + 1e-5
    assert area.min() >= min(0.4, fitting) - 1e-5
    assert ratio.min() > 3 / 4 - 1e-4
    assert ratio.max() < 4 / 3 + 1e-4
    if fitting > 0.45:
        assert np.quantile(area, 0.5) == pytest.approx((0.4 + fitting) / 2, abs=0.02)


def test_what_is_shown_is_read_where_the_map_says():
    """Against SciPy's interpolation of the kept pixels at the crop's pixel centres."""
    augment = AffineAugment(PLAIN, crop=0.3, flip=True, train_size=(7, 5), kept_size=16)
    row, numbers = rows(augment, photo(33, 47)), draws(5, 1, 4)[None]
    pixels = row[0, :-4].reshape(16, 16, 3).numpy().astype(float)
    ((a, b, x0), (c, d, y0)) = augment.maps(torch.from_numpy(numbers), torch.tensor([47 / 33]))[0].tolist()
    assert b == c == 0
    x = (np.arange(5) + 0.5) / 5 * 2 - 1
    y = (np.arange(7) + 0.5) / 7 * 2 - 1
    columns, lines = ((a * x + x0 + 1) * 16 - 1) / 2, ((d * y + y0 + 1) * 16 - 1) / 2
    grid = np.stack(np.meshgrid(lines, columns, indexing="ij"))
    wanted = np.stack([map_coordinates(pixels[..., n], grid, order=1, mode="nearest") for n in range(3)]) / 255
    np.testing.assert_allclose(augment(row, numbers)[0].numpy(), wanted, atol=1e-4)


def test_a_whole_crop_at_the_kept_size_is_the_image_itself():
    spec = InputSpec(height=16, width=16, crop_pct=1.0, crop_mode="squash")
    augment = AffineAugment(spec, crop=1.0, flip=False, kept_size=16)
    image = photo(16, 16)
    shown = augment(rows(augment, image), draws(0, 0, 0)[None])[0]
    torch.testing.assert_close(shown, EvalTransform(spec)(image), atol=1e-5, rtol=0)


def test_every_second_image_is_mirrored_where_that_is_allowed():
    bright_left = np.zeros((16, 16, 3), dtype=np.uint8)
    bright_left[:, :8] = 255
    for flip, expected in ((True, (400, 600)), (False, (1000, 1000))):
        augment = AffineAugment(PLAIN, crop=1.0, flip=flip)
        kept = rows(augment, Image.fromarray(bright_left)).expand(1000, -1)
        shown = augment(kept, all_draws(0, 0, 1000))
        left = int((shown[..., :4].mean(dim=(1, 2, 3)) > shown[..., 5:].mean(dim=(1, 2, 3))).sum())
        assert expected[0] <= left <= expected[1]


def test_sizes():
    augment = AffineAugment(InputSpec(height=64, width=64), crop=0.5, flip=False, train_size=(48, 48))
    assert augment.kept.spec.shape == (3, 73, 73)
    assert augment.row_bytes == 3 * 73 * 73 + 4
    assert augment(rows(augment, photo(30, 50)), draws(0, 0, 0)[None]).shape == (1, 3, 48, 48)
    gray = AffineAugment(InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,)), crop=0.5, flip=False)
    assert gray(rows(gray, photo(30, 50)), draws(0, 0, 0)[None]).shape == (1, 1, 8, 8)
