"""What a look at a data set finds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from headstart.config import compose, resolve_run
from headstart.data.datamodule import ImageDataModule
from headstart.inspection.facts import inspect_data
from headstart.training.assemble import build_data


@pytest.fixture
def data(image_folder: Callable[..., Path]) -> ImageDataModule:
    root = image_folder(splits={"train": 20, "val": 10})
    first = min((root / "train" / "ant").iterdir())
    shutil.copy(first, root / "train" / "ant" / "same.png")
    chosen = resolve_run(compose(["datamodule=folder", f"datamodule.root={root}"])).settings
    return build_data(chosen.datamodule, seed=1, task=chosen.task)


def test_of_many_images_some_of_every_split_are_opened_and_the_same_file_is_found_all_the_same(data: ImageDataModule):
    whole, some = inspect_data(data), inspect_data(data, most=10)
    assert {split: len(seen) for split, seen in whole.seen.items()} == whole.sizes == {"train": 41, "val": 20}
    assert {split: len(seen) for split, seen in some.seen.items()} == {"train": 6, "val": 3}
    assert some.seen["val"][1].gray.tolist() == whole.seen["val"][7].gray.tolist()
    for found in (whole, some):
        [pair] = [pair for pair in found.pairs if pair.exact]
        assert (pair.first.split, pair.second.split, pair.same_label) == ("train", "train", True)
    assert "9 images were opened, evenly over the splits" in some.facts()[0]
    assert not any("opened" in fact for fact in whole.facts())


def test_it_opens_with_how_many_there_are_and_what_for(data: ImageDataModule):
    opening = inspect_data(data).opening()
    assert opening.endswith(": 61 images in 2 classes: 41 to train, 20 to validate")


def test_a_damaged_orientation_is_none(image_folder: Callable[..., Path]):
    root = image_folder()
    place = min((root / "train" / "ant").iterdir())
    with Image.open(place) as image:
        image.save(place, exif=b"Exif\0\0garbage")
    chosen = resolve_run(compose(["datamodule=folder", f"datamodule.root={root}"])).settings
    assert inspect_data(build_data(chosen.datamodule, seed=1, task=chosen.task)).turned() == 0
