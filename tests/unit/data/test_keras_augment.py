"""Shear, zoom and steps as in Keras."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import affine_transform

from headstart.data import Digits, InputSpec
from headstart.data.affine import DRAWS, AffineAugment, all_draws
from headstart.data.augment import Augmentation
from headstart.data.sampler import EpochSampler, RepeatedBatches
from headstart.data.transforms import EvalTransform

SPEC = InputSpec(height=12, width=9, mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0, crop_mode="squash")


def keras(image: np.ndarray, shear: float, zoom: tuple[float, float]) -> np.ndarray:
    """Its formulas, over SciPy's interpolation."""
    angle = np.deg2rad(shear)
    matrix = np.array([[1, -np.sin(angle)], [0, np.cos(angle)]]) @ np.diag(zoom)
    centre = np.array(image.shape[:2]) / 2 - 0.5
    offset = centre - matrix @ centre
    planes = [
        affine_transform(plane, matrix, offset, order=1, mode="nearest")
        for plane in image.transpose(2, 0, 1).astype(float)
    ]
    return np.stack(planes, axis=-1)


def numbers_for(shear: float, zoom: tuple[float, float], *, shear_range: float, zoom_range: float) -> np.ndarray:
    """Those that give this shear and these zooms of rows and columns, and no mirroring."""
    found = np.full((1, DRAWS), 0.9)
    found[0, 0] = (shear / shear_range + 1) / 2
    found[0, 1:3] = [((value - 1) / zoom_range + 1) / 2 for value in zoom]
    return found


@pytest.mark.parametrize(
    ("shear", "zoom"), [(0.0, (1.0, 1.0)), (0.2, (0.9, 1.15)), (-25.0, (1.2, 0.8)), (40.0, (1, 1))]
)
def test_shear_and_zoom_are_those_of_keras(shear, zoom):
    image = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    augment = keras_augment(shear_range=45.0, zoom_range=0.3)
    rows = torch.from_numpy(augment.keep(Image.fromarray(image)))[None]
    shown = augment(rows, numbers_for(shear, zoom, shear_range=45.0, zoom_range=0.3))[0] * 255
    np.testing.assert_allclose(shown.permute(1, 2, 0).numpy(), keras(image, shear, zoom), atol=5e-3)


def keras_augment(**choices) -> AffineAugment:
    augment = Augmentation(**({"augment": "keras", "flip": False, "min_crop": 1.0} | choices)).transform(SPEC)
    assert isinstance(augment, AffineAugment)
    return augment


def views(image: Image.Image, count: int, **choices) -> torch.Tensor:
    augment = keras_augment(**choices)
    return augment(torch.from_numpy(augment.keep(image)).expand(count, -1), all_draws(0, 0, count))


def test_without_ranges_the_image_is_that_of_evaluation():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    plain = EvalTransform(SPEC)(image)
    torch.testing.assert_close(views(image, 1)[0], plain, atol=1e-5, rtol=0)
    mirrored = [torch.allclose(view, plain.flip(-1), atol=1e-5) for view in views(image, 20, flip=True)]
    straight = [torch.allclose(view, plain, atol=1e-5) for view in views(image, 20, flip=True)]
    assert any(mirrored)
    assert any(straight)
    assert all(one != other for one, other in zip(mirrored, straight, strict=True))


def test_the_ranges_bound_what_happens():
    ramp = np.tile(np.arange(0, 240, 20, dtype=np.uint8)[:, None, None], (1, 9, 3))
    shown = views(Image.fromarray(ramp), 200, zoom_range=0.2)
    slopes = (shown[:, 0, 6, 4] - shown[:, 0, 5, 4]) / (20 / 255)
    assert 0.8 <= slopes.min() < 0.85
    assert 1.15 < slopes.max() <= 1.2001


def stream(epochs: int, *, length: int = 10, batch_size: int = 4, steps: int = 4, **choices) -> list[list[list]]:
    batches = RepeatedBatches(EpochSampler(length, seed=1, shuffle=True, **choices), batch_size, steps=steps)
    found = []
    for epoch in range(epochs):
        batches.sampler.set_epoch(epoch)
        found.append(list(batches))
    return found


def test_an_epoch_goes_on_where_the_last_one_ended():
    batches = [batch for epoch in stream(3) for batch in epoch]
    assert [len(batch) for batch in batches] == [4, 4, 2] * 4
    passes = [sorted(index for batch in batches[start : start + 3] for _, index in batch) for start in (0, 3, 6, 9)]
    assert passes == [list(range(10))] * 4
    orders = [[index for batch in batches[start : start + 3] for _, index in batch] for start in (0, 3)]
    assert orders[0] != orders[1]
    assert {number for batch in batches[3:6] for number, _ in batch} == {1}  # so augmentation differs between passes


def test_every_process_has_its_part():
    parts = [stream(2, rank=rank, world_size=2, steps=3) for rank in (0, 1)]
    first = [sorted(index for part in parts for batch in part[0][:2] for _, index in batch)]
    assert first == [list(range(10))]
    assert [len(batch) for batch in parts[0][0]] == [len(batch) for batch in parts[1][0]]


def test_a_datamodule_has_that_many_steps():
    data = Digits(batch_size=16, seed=1, image_size=16, shots=4, num_workers=0, steps_per_epoch=5, val_steps=3)
    data.configure(InputSpec())
    assert data.sizes["train"] == 40
    assert [len(batch["targets"]) for batch in data.train_dataloader()] == [16, 16, 8, 16, 16]
    assert data.sizes["val"] == 48
    assert len(set(data.targets("val"))) == 10  # a random choice, not the first ones of a sorted split
    again = Digits(batch_size=16, seed=9, image_size=16, shots=4, num_workers=0, val_steps=3)
    assert data.records("val").ids == again.records("val").ids
