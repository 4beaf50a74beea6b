"""The user's own folder: splits, dirt and unreadable images."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data import Folder, InputSpec
from headstart.errors import DataError

MakeFolder = Callable[..., Path]


def folder(root: Path, **choices: Any) -> Folder:
    return Folder(**({"root": root, "batch_size": 4, "seed": 0, "num_workers": 0} | choices))


def test_split_folders(image_folder: MakeFolder) -> None:
    module = folder(image_folder(splits={"train": 6, "val": 4, "test": 3}))
    assert module.sizes == {"train": 12, "val": 8, "test": 6}
    assert module.classes == ("ant", "bee")
    assert module.targets("val").tolist() == [0] * 4 + [1] * 4
    assert module.records("test").ids[0] == "test/ant/000.png"
    assert module.summary()["carved"] == []


def test_validation_is_carved_where_there_is_none(image_folder: MakeFolder) -> None:
    module = folder(image_folder(splits={"train": 10, "test": 3}), val_fraction=0.3)
    assert module.sizes == {"train": 14, "val": 6, "test": 6}
    assert module.summary()["carved"] == ["val"]
    assert all(name.startswith("train/") for name in module.records("val").ids)


def test_no_test_split_is_invented(image_folder: MakeFolder) -> None:
    root = image_folder(splits={"train": 10, "val": 4})
    assert folder(root).sizes == {"train": 20, "val": 8}
    with_test = folder(root, test_fraction=0.2)
    assert with_test.sizes == {"train": 16, "val": 8, "test": 4}
    assert with_test.summary()["carved"] == ["test"]


def test_one_folder_is_split_by_fractions_and_split_seed(image_folder: MakeFolder) -> None:
    root = image_folder(splits={"": 20})
    module = folder(root, val_fraction=0.25, test_fraction=0.1)
    assert module.sizes == {"train": 26, "val": 10, "test": 4}
    assert np.bincount(module.targets("val")).tolist() == [5, 5]
    assert folder(root, seed=7).records("val").ids == folder(root).records("val").ids
    assert folder(root, split_seed=7).records("val").ids != folder(root).records("val").ids


def test_a_test_folder_and_a_test_fraction_exclude_each_other(image_folder: MakeFolder) -> None:
    with pytest.raises(DataError, match="test split of its own"):
        folder(image_folder(splits={"train": 6, "val": 4, "test": 3}), test_fraction=0.2).prepare()
    with pytest.raises(DataError, match="chosen on validation"):
        folder(image_folder(splits={"": 6}, name="single"), val_fraction=0.0).prepare()


@pytest.fixture
def dirty(image_folder: MakeFolder) -> Path:
    """Every kind of image that must be read, two that cannot be, and files that are none."""
    root = image_folder(splits={"train": 6, "val": 4})
    ants = root / "train" / "ant"
    Image.new("RGBA", (20, 30), (9, 9, 9, 128)).save(ants / "rgba.png")
    Image.new("CMYK", (20, 30), (9, 99, 9, 9)).save(ants / "cmyk.jpg")
    Image.fromarray(np.full((20, 30), 40_000, dtype=np.uint16)).save(ants / "deep.png")
    Image.new("L", (20, 30), 77).save(ants / "gray.jpeg")
    Image.new("P", (20, 30), 0).save(ants / "palette.png")
    Image.new("RGB", (20, 30)).save(ants / "placeholder.gif")
    (ants / ".DS_Store").write_bytes(b"\0")
    (ants / "photo with spaces.JPG").write_bytes((ants / "cmyk.jpg").read_bytes() + b"tail")
    (ants / "cut.jpg").write_bytes((ants / "gray.jpeg").read_bytes()[:-40])
    (root / "val" / "bee" / "page.png").write_text("<html>404</html>")
    return root


def test_dirt_is_read_ignored_or_skipped_and_counted(dirty: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = folder(dirty)
    with caplog.at_level(logging.WARNING):
        module.prepare()
    summary = module.summary()
    assert summary["sizes"] == {"train": 18, "val": 8}
    assert summary["ignored"] == {".DS_Store": 1, ".gif": 1}
    skipped = [Path(entry["path"]).relative_to(dirty).as_posix() for entry in summary["skipped"]]
    assert skipped == ["train/ant/cut.jpg", "val/bee/page.png"]
    assert summary["skipped_count"] == 2
    assert "truncated" in summary["skipped"][0]["error"].lower()
    assert str(dirty / "train" / "ant" / "cut.jpg") in caplog.text
    module.configure(InputSpec(height=24, width=24))
    batches = list(module.train_dataloader()) + list(module.val_dataloader())
    assert sum(len(batch["index"]) for batch in batches) == 26
    assert all(batch["images"].shape[1:] == (3, 24, 24) for batch in batches)


def test_unreadable_images_can_be_fatal(dirty: Path) -> None:
    with pytest.raises(DataError, match=r"2 unreadable image\(s\): .*cut\.jpg \(.*[Tt]runcated.*page\.png"):
        folder(dirty, on_bad_image="raise").prepare()


def test_skipping_does_not_move_other_images_between_splits(image_folder: MakeFolder) -> None:
    root = image_folder(splits={"": 20})
    before = set(folder(root).records("val").ids)
    damaged = sorted(set(folder(root).records("train").ids))[0]
    (root / damaged).write_bytes(b"damaged")
    module = folder(root)
    assert set(module.records("val").ids) == before
    assert damaged not in module.records("train").ids


def test_a_class_of_damaged_images_is_an_error(image_folder: MakeFolder) -> None:
    root = image_folder(splits={"train": 3, "val": 2})
    for path in (root / "val" / "bee").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="val split has no usable image of class bee"):
        folder(root).prepare()


def test_an_image_in_two_splits_is_noticed(image_folder: MakeFolder, caplog: pytest.LogCaptureFixture) -> None:
    root = image_folder(splits={"train": 6, "val": 4})
    shutil.copy(root / "train" / "ant" / "000.png", root / "val" / "ant" / "copy.png")
    module = folder(root, on_leak="ignore")
    with caplog.at_level(logging.WARNING):
        assert module.summary()["shared_between_splits"] == {"train and val": 1}
    assert "scores on them are too good" in caplog.text


def test_the_fingerprint_follows_content_not_place(image_folder: MakeFolder, tmp_path: Path) -> None:
    root = image_folder()
    first = folder(root).summary()
    copied = shutil.copytree(root, tmp_path / "copied" / "images")
    assert folder(copied).summary() == first
    changed = copied / "train" / "ant" / "000.png"
    Image.new("RGB", (32, 32)).save(changed)
    second = folder(copied).summary()
    assert second["fingerprint"] != first["fingerprint"]
    assert second["split_fingerprints"]["val"] == first["split_fingerprints"]["val"]


def test_an_image_that_disappears_later_is_named(image_folder: MakeFolder) -> None:
    root = image_folder()
    module = folder(root)
    module.prepare()
    module.configure(InputSpec(height=8, width=8))
    (root / "val" / "ant" / "000.png").unlink()
    with pytest.raises(DataError, match=r"val/ant/000\.png cannot be read"):
        next(iter(module.val_dataloader()))


def test_a_missing_root_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"root=.*nowhere does not exist"):
        folder(tmp_path / "nowhere")


@pytest.mark.skipif("HEADSTART_SHARED" not in os.environ, reason="set HEADSTART_SHARED to the folder with hymenoptera")
def test_hymenoptera(tmp_path: Path) -> None:
    """The set of PyTorch's transfer-learning tutorial, with its dirt."""
    import tarfile

    with tarfile.open(Path(os.environ["HEADSTART_SHARED"]) / "data" / "hymenoptera.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    module = folder(tmp_path / "hymenoptera")
    assert module.sizes == {"train": 244, "val": 153}
    assert module.classes == ("ants", "bees")
    assert module.summary()["ignored"] == {".gif": 1}
    assert module.summary()["skipped"] == []
