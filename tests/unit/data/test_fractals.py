"""Fractals: the same numbers give the same pixels, and classes can be told apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from headstart_testing import tiny_run

from headstart.config.settings import CacheSettings
from headstart.data import Fractals, InputSpec
from headstart.data import fractals as drawing
from headstart.data.fractals import Fractal, attractor, system
from headstart.store.activations import CachedData
from headstart.strategies import Full

PINNED = [[170.1, 116.5, 109.0], [63.7, 97.1, 73.1], [66.9, 69.5, 47.1]]


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


def test_pixels_are_those_of_this_version():
    """Where this fails, pixels have changed: raise VERSION, then write down what is drawn now."""
    assert drawing.VERSION == 2
    drawn = [Fractal(0, category, 0, 32).draw().astype(float) for category in range(3)]
    means = [[round(level, 1) for level in image.mean(axis=(0, 1))] for image in drawn]
    np.testing.assert_allclose(means, PINNED, atol=0.5)  # another processor may round a point into the next pixel


def test_points_lie_on_the_attractor():
    """It is the union of its own images under the maps, so every point has one of them near it."""
    maps = system(0, 3)
    points = attractor(maps, np.random.default_rng(0)).T.astype(np.float64)
    size = np.ptp(points, axis=0).max()
    images = np.concatenate([points @ each[:, :2].T + each[:, 2] for each in maps])
    distances = np.sqrt(((points[::40, None] - images[None, ::2]) ** 2).sum(axis=-1)).min(axis=1)
    assert np.quantile(distances, 0.99) < 0.02 * size
    assert np.quantile(distances, 0.5) > 0  # float32 points are not the same numbers twice


def test_what_runs_away_is_no_attractor():
    away = np.array([[[1.5, 0, 1], [0, 1.5, 0]], [[2.0, 0, 0], [0, 2.0, 1]]])
    assert attractor(away, np.random.default_rng(0)) is None
    onto_one_point = np.array([[[0.1, 0, 0], [0, 0.1, 0]]])
    assert attractor(onto_one_point, np.random.default_rng(0)) is None


def test_few_images_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drawing, "_REMEMBERED_BYTES", 4 * (3 * 24**2 + 1024))
    drawing._remembering.cache_clear()
    images = [Fractal(0, 0, number, 24) for number in range(6)]
    drawn = [image.draw() for image in images]
    info = drawing._remembering(24, 1).cache_info()
    assert (info.maxsize, info.currsize) == (4, 4)
    assert images[5].draw() is drawn[5]
    forgotten = images[0].draw()
    assert forgotten is not drawn[0]
    np.testing.assert_array_equal(forgotten, drawn[0])
    assert drawing._remembering(24, 2).cache_info().maxsize == 2
    with pytest.raises(ValueError, match="read-only"):
        drawn[0][0, 0] = 0
    drawing._remembering.cache_clear()


def test_systems_contract_and_are_worth_looking_at():
    for category in range(20):
        maps = system(7, category)
        singular = np.linalg.svd(maps[:, :, :2], compute_uv=False)
        assert singular.max() < 1
        total = (singular[:, 0] + 2 * singular[:, 1]).sum()
        assert (5 + len(maps)) / 2 - 1e-9 <= total <= (6 + len(maps)) / 2 + 1e-9
        image = Fractal(7, category, 0, 32).draw().astype(float)
        colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        ground = colours[counts.argmax()]
        differs = (np.abs(image - ground).sum(axis=-1) > 30).mean()
        assert 0.04 < differs < 0.7, category


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


def test_without_augmentation_images_are_drawn_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn, draw = [], Fractal.draw_anew
    monkeypatch.setattr(Fractal, "draw_anew", lambda self: drawn.append(self) or draw(self))
    found = []
    for _ in range(2):
        drawing._remembering.cache_clear()
        run, module = tiny_run(Full(), backbone={"name": "test_resnet"}), fractals(augment="none", val_fraction=0.2)
        run.data = CachedData(
            module,
            run.module.model,
            run.module.plan.phases,
            run.module.audit.info,
            settings=CacheSettings(),
            folder=tmp_path,
        )
        run.fit()
        found.append([use["hit"] for use in run.data.record()["entries"]])
    assert found == [[False, False], [True, True]]
    assert sorted(image.number for image in drawn) == sorted(list(range(10)) * 3)
    drawing._remembering.cache_clear()
