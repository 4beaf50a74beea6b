"""``headstart predict --explain`` of a vision transformer trained here: the heat lies on what decides the class."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import headstart
from headstart.commands.predict import main
from headstart.execution.load import to_image

_SIDE, _RADIUS = 64, 9
_COLOURS = {"blue": (40, 60, 230), "red": (230, 40, 40)}


def write_discs(root: Path, counts: dict[str, int]) -> dict[Path, tuple[int, int]]:
    """Photographs of a disc, blue or red, on gray noise with a green one beside it; where the first one is."""
    generator, places = np.random.default_rng(0), {}
    for split, count in counts.items():
        for label, colour in _COLOURS.items():
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                noise = Image.fromarray(generator.integers(60, 190, (8, 8), dtype=np.uint8))
                image = noise.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGB")
                for fill in ((60, 200, 60), colour):
                    x, y = generator.integers(_RADIUS, _SIDE - _RADIUS, 2).tolist()
                    box = (x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS)
                    ImageDraw.Draw(image).ellipse(box, fill=fill)
                path = root / split / label / f"{number:03d}.png"
                image.save(path)
                places[path] = (x, y)
    return places


@pytest.mark.slow
def test_a_trained_transformer_shows_what_decides(train: Callable, tmp_path: Path):
    pytest.importorskip("captum")
    from headstart.inference.explain import explanation, heat_map, picture_name

    root = tmp_path / "discs"
    places = write_discs(root, {"train": 150, "val": 12})
    network = ["backbone=vit_tiny_patch16_224", "backbone.weights=none", "strategy=full", "optimizer.lr=0.0005"]
    data = [f"datamodule.image_size={_SIDE}", "datamodule.augment=none", "datamodule.fit=squash"]
    trained = train(*network, *data, "trainer.max_epochs=3", root=root)
    assert trained.result.metrics["val/acc"] == 1
    model = headstart.load(trained.run.path)
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    shares, hottest = [], []
    for path in sorted((root / "val").rglob("*.png")):
        place = model.classes.index(path.parent.name)
        heat = heat_map(model, model.transform(to_image(str(path), 3))[None], place)
        x, y = places[path]
        inside = (columns - x) ** 2 + (rows - y) ** 2 <= (1.3 * _RADIUS) ** 2
        shares.append(heat[inside].sum() / heat.sum() / inside.mean())
        hottest.append(inside[np.unravel_index(heat.argmax(), heat.shape)])
    assert np.median(shares) > 3  # times as much as evenly spread; integrated gradients reach 2.5
    assert np.mean(hottest) > 0.6

    assert main([str(trained.run.path), str(path), "--explain", str(tmp_path / "why"), "--device", "cpu"]) == 0
    written = Image.open(tmp_path / "why" / picture_name(str(path)))
    np.testing.assert_array_equal(np.asarray(written), np.asarray(explanation(model, str(path), place)))
