"""Shear, zoom and steps as in Keras."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import affine_transform

from headstart.data import Digits, InputSpec
from headstart.data.sampler import EpochSampler, RepeatedBatches
from headstart.data.transforms import TrainTransform, shear_and_zoom
from headstart.errors import DataError

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


@pytest.mark.parametrize(
    ("shear", "zoom"), [(0.0, (1.0, 1.0)), (0.2, (0.9, 1.15)), (-25.0, (1.2, 0.8)), (40.0, (1, 1))]
)
def test_shear_and_zoom_are_those_of_keras(shear, zoom):
    image = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    np.testing.assert_allclose(shear_and_zoom(image, shear=shear, zoom=zoom), keras(image, shear, zoom), atol=2e-3)


def transform(**choices) -> TrainTransform:
    return TrainTransform(SPEC, **({"augment": "keras", "flip": False, "min_crop": 1.0} | choices))


def test_without_ranges_the_image_is_that_of_evaluation():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    plain = TrainTransform(SPEC, augment="none", flip=False, min_crop=1.0)
    torch.testing.assert_close(transform()(image), plain(image), atol=1e-6, rtol=0)
    mirrored = [transform(flip=True)(image) for _ in range(20)]
    assert {torch.equal(view, mirrored[0]) for view in mirrored} == {True, False}
    flipped = plain(image).flip(-1)
    assert all(torch.allclose(view, flipped) or torch.allclose(view, plain(image)) for view in mirrored)


def test_the_ranges_bound_what_happens():
    ramp = np.tile(np.arange(0, 240, 20, dtype=np.uint8)[:, None, None], (1, 9, 3))
    views = torch.stack([transform(zoom_range=0.2)(Image.fromarray(ramp)) for _ in range(200)])
    slopes = (views[:, 0, 6, 4] - views[:, 0, 5, 4]) / (20 / 255)
    assert 0.8 <= slopes.min() < 0.85
    assert 1.15 < slopes.max() <= 1.2001
    with pytest.raises(DataError, match="zoom_range"):
        transform(zoom_range=1.0)
    with pytest.raises(DataError, match="augment=keras only"):
        transform(augment="light", shear_range=0.2)


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
