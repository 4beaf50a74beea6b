"""The same picture in two splits, as another file."""

import io
import json
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from headstart.data import Digits, Folder, WebDataset, images, leakage
from headstart.data.datamodule import ImageDataModule

FIXED = {"batch_size": 4, "seed": 0}
HINT = "headstart inspect"


@pytest.fixture
def clean(image_folder: Callable[..., Path]) -> Path:
    return image_folder(splits={"train": 5, "val": 3, "test": 3}, size=64)


@pytest.fixture
def planted(clean: Path) -> Path:
    """Of training images one is in val mirrored and one in test as a JPEG; one of val is in test, larger."""
    first = {split: sorted((clean / split / "ant").iterdir()) for split in ("train", "val")}
    for source, copy, change in (
        (first["train"][0], "val/ant/mirrored.png", ImageOps.mirror),
        (first["train"][1], "test/ant/encoded.jpg", lambda image: image),
        (first["val"][0], "test/ant/larger.png", lambda image: image.resize((128, 128))),
    ):
        with Image.open(source) as image:
            change(image.convert("RGB")).save(clean / copy)
    then = time.time() - 60
    for path in clean.rglob("*.*"):
        os.utime(path, (then, then))
    return clean


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if HINT in record.getMessage()]


def test_they_are_counted_and_warned_of_once_with_their_names(planted: Path, caplog: pytest.LogCaptureFixture):
    module = Folder(root=planted, **FIXED)
    for _ in range(2):
        module.prepare()
        told = {"train and val": 1, "train and test": 1, "val and test": 1}
        assert module.summary()["near_duplicates"] == told
    [said] = warnings(caplog)
    assert "1 in train and val, 1 in train and test, 1 in val and test" in said
    assert "train/ant/000.png = val/ant/mirrored.png" in said
    assert module.summary()["shared_between_splits"] == {}


def test_of_clean_images_and_exact_copies_there_are_none(clean: Path, caplog: pytest.LogCaptureFixture):
    (clean / "val" / "ant" / "copy.png").write_bytes((clean / "train" / "ant" / "000.png").read_bytes())
    summary = Folder(root=clean, on_leak="ignore", **FIXED).summary()
    assert (summary["near_duplicates"], summary["shared_between_splits"]) == ({}, {"train and val": 1})
    assert warnings(caplog) == []


def test_the_second_time_nothing_is_decoded_or_compared(
    planted: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    first = Folder(root=planted, **FIXED).summary()
    monkeypatch.setattr(images, "small_gray", lambda image: pytest.fail("an image was decoded again"))
    with monkeypatch.context() as patch:
        patch.setattr(leakage, "alike_in", lambda *pictures: pytest.fail("pictures were compared again"))
        assert Folder(root=planted, **FIXED).summary() == first
    assert len(warnings(caplog)) == 2
    # Other splits of the same images are compared, from the pictures that are remembered.
    (planted / "test" / "ant" / "encoded.jpg").rename(planted / "test" / "ant" / "renamed.jpg")
    assert Folder(root=planted, **FIXED).summary()["near_duplicates"] == first["near_duplicates"]


def test_images_in_tar_files_are_compared_too(planted: Path, tmp_path: Path):
    for split in ("train", "val", "test"):
        with tarfile.open(tmp_path / f"{split}.tar", "w") as shard:
            for number, path in enumerate(sorted((planted / split).rglob("*.*"))):
                for suffix, content in ((path.suffix, path.read_bytes()), (".cls", path.parent.name.encode())):
                    member = tarfile.TarInfo(f"{number:03d}{suffix}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    module = WebDataset(root=tmp_path, **FIXED)
    assert module.summary()["near_duplicates"] == {"train and val": 1, "train and test": 1, "val and test": 1}


def not_compared(module: ImageDataModule) -> bool:
    return json.loads(json.dumps(module.summary()))["near_duplicates"] is None


def test_where_they_were_not_looked_for_that_is_said(
    planted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    assert not_compared(Digits(**FIXED))
    with monkeypatch.context() as patch:
        patch.setattr(leakage, "MOST_COMPARED", 10)
        assert not_compared(Folder(root=planted, **FIXED))
    (tmp_path / "no folder").touch()
    assert not_compared(Folder(root=planted, memory_path=tmp_path / "no folder" / "memory", **FIXED))
    assert warnings(caplog) == []
