"""Fractals: the same numbers give the same pixels, and classes can be told apart."""

import numpy as np
import pytest
import torch

from headstart.data import Fractals, InputSpec
from headstart.data.fractals import Fractal, system


def fractals(**choices) -> Fractals:
    module = Fractals(
        categories=3, per_category=10, size=16, image_size=16, batch_size=8, seed=0, num_workers=0, **choices
    )
    module.configure(InputSpec())
    return module


def test_an_image_is_a_function_of_its_numbers():
    first, again = Fractal(0, 2, 5, 32).draw(), Fractal(0, 2, 5, 32).draw()
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    others = [Fractal(1, 2, 5, 32), Fractal(0, 3, 5, 32), Fractal(0, 2, 6, 32)]
    assert all((other.draw() != first).any() and other.digest != Fractal(0, 2, 5, 32).digest for other in others)


def test_systems_contract_and_are_worth_looking_at():
    for category in range(20):
        maps = system(7, category)
        singular = np.linalg.svd(maps[:, :, :2], compute_uv=False)
        assert singular.max() < 1
        total = (singular[:, 0] + 2 * singular[:, 1]).sum()
        assert (5 + len(maps)) / 2 - 1e-9 <= total <= (6 + len(maps)) / 2 + 1e-9
        image = Fractal(7, category, 0, 32).draw().astype(float)
        ground = np.median(image.reshape(-1, 3), axis=0)
        differs = (np.abs(image - ground).sum(axis=-1) > 30).mean()
        assert 0.02 < differs < 0.98, category


def test_variations_are_nearer_to_their_class_than_to_others():
    """Nearest mean of ink, whatever its colour, on images that were not used for the means."""

    def ink(image: np.ndarray) -> np.ndarray:
        levels = image.astype(float).mean(axis=-1)
        border = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
        return np.abs(levels - np.median(border)).ravel()

    drawn = np.array([[ink(Fractal(0, c, n, 16).draw()) for n in range(24)] for c in range(4)])
    means = drawn[:, :16].mean(axis=1)
    distances = ((drawn[:, 16:, None] - means) ** 2).sum(axis=-1)
    accuracy = (distances.argmin(axis=-1) == np.arange(4)[:, None]).mean()
    assert accuracy > 0.5  # 0.25 by chance


def test_the_datamodule_draws_what_it_is_asked_for():
    module = fractals(val_fraction=0.2)
    assert module.classes == ("system0", "system1", "system2")
    assert module.sizes == {"train": 24, "val": 6}
    batch = next(iter(module.val_dataloader()))
    assert batch["images"].shape == (6, 3, 16, 16)
    assert torch.equal(batch["images"], next(iter(fractals(val_fraction=0.2).val_dataloader()))["images"])
    assert module.summary()["fingerprint"] != fractals(val_fraction=0.2, data_seed=1).summary()["fingerprint"]


@pytest.mark.parametrize("workers", [1])
def test_workers_draw_the_same(workers: int):
    here, there = fractals(), fractals()
    there.num_workers = workers
    for first, second in zip(here.train_dataloader(), there.train_dataloader(), strict=True):
        assert torch.equal(first["images"], second["images"])
