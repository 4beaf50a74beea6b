"""The same image in two splits."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.data import Folder
from headstart.data.sources.torchvision_sets import Torchvision
from headstart.errors import DataError

FIXED = {"batch_size": 4, "seed": 0}


@pytest.fixture
def leaking(image_folder: Callable[..., Path]) -> Path:
    """One training image is in val too, another in test, and one of val in test."""
    root = image_folder(splits={"train": 5, "val": 3, "test": 3})
    first = {split: sorted((root / split / "ant").iterdir()) for split in ("train", "val", "test")}
    shutil.copy(first["train"][0], root / "val" / "ant" / "copy.png")
    shutil.copy(first["train"][1], root / "test" / "ant" / "copy.png")
    shutil.copy(first["val"][0], root / "test" / "ant" / "other.png")
    return root


def test_it_is_an_error_that_names_the_pair(leaking: Path):
    with pytest.raises(DataError, match=r"1 in train and val, 1 in train and test, 1 in val and test") as error:
        Folder(root=leaking, **FIXED).prepare()
    assert "= val/ant/copy.png" in str(error.value)
    assert "datamodule.on_leak=drop" in str(error.value)


def test_drop_takes_it_out_of_the_training_and_leaves_the_scored_images(leaking: Path):
    kept = Folder(root=leaking, on_leak="ignore", **FIXED)
    module = Folder(root=leaking, on_leak="drop", **FIXED)
    assert module.records("test").ids == kept.records("test").ids
    assert {split: kept.sizes[split] - module.sizes[split] for split in kept.sizes} == {"train": 2, "val": 1, "test": 0}
    digests = [set(module.records(split).digests) for split in ("train", "val", "test")]
    assert sum(map(len, digests)) == len(set.union(*digests))
    told = {"train and val": 1, "train and test": 1, "val and test": 1}
    assert module.summary()["shared_between_splits"] == kept.summary()["shared_between_splits"] == told


def test_published_splits_are_left_as_they_are():
    assert Torchvision.usual_on_leak == "ignore"
