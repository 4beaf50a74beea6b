"""The page of a data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import InputSpec
from headstart.data.segmentation.shapes import Shapes
from headstart.inspection import page
from headstart.inspection.facts import inspect_data
from headstart.study.thumbnails import thumbnail
from headstart.system.colours import palette


def test_masks_are_laid_over_what_the_network_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = Shapes(images=20, size=32, batch_size=4, seed=0, task="segmentation")
    data.prepare()
    data.configure(InputSpec(height=32, width=32, crop_pct=1.0))
    shown: list[Image.Image] = []
    monkeypatch.setattr(page, "thumbnail", lambda picture: shown.append(picture.copy()) or thumbnail(picture))
    text = page.write_page(inspect_data(data), data, tmp_path).read_text()
    assert "Masks are laid over what the network sees" in text
    records = data.records("train")
    assert records.masks is not None
    for place, (stored, evaluated, *trained) in enumerate(zip(*[iter(shown)] * 4, strict=True)):
        assert np.array_equal(stored, records.images[place])
        wanted = (np.asarray(stored).astype(int) + palette()[records.masks.read(place)]) / 2
        assert np.abs(np.asarray(evaluated) - wanted).max() <= 2
        assert all(np.asarray(one).shape == (32, 32, 3) for one in trained)
