"""Predicted masks as files: none takes the place of another file."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.errors import DataError
from headstart.inference.masks import mask_name, write_mask

MASK = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_a_mask_is_written_anew_for_its_image_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert mask_name("photos/a.jpg") == mask_name("photos/a.png") == Path("photos/a.png")
    write_mask(tmp_path / "a.png", MASK, image="photos/a.jpg")
    write_mask(tmp_path / "a.png", MASK + 1, image=str(tmp_path / "photos" / "a.jpg"))
    with pytest.raises(
        DataError, match=r"a\.png is there already and no predicted mask of photos/a\.png; give an empty"
    ):
        write_mask(tmp_path / "a.png", MASK, image="photos/a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), MASK + 1)


@pytest.mark.parametrize("kind", ["mask of the user's", "text", "folder", "pipe"])
def test_what_is_there_stays(kind: str, tmp_path: Path):
    path = tmp_path / "a.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "text":
        path.write_text("x")
    else:
        Image.fromarray(MASK).save(path)
    before = path.stat()
    with pytest.raises(DataError, match="is there already"):
        write_mask(path, MASK, image="a.jpg")
    assert path.stat() == before
