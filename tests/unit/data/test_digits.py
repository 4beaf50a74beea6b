"""The embedded data set."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from headstart.data import Digits, InputSpec
from headstart.errors import DataError


def digits(**choices: Any) -> Digits:
    return Digits(**({"batch_size": 8, "seed": 0} | choices))


def test_all_images_are_there_in_rgb() -> None:
    module = digits()
    assert module.sizes == {"train": 1079, "val": 359, "test": 359}
    assert module.classes == tuple("0123456789")
    records = module.records("train")
    pixels = np.stack(list(records.images))
    assert pixels.shape == (1079, 8, 8, 3)
    assert pixels.dtype == np.uint8
    number = int(records.ids[7].removeprefix("digits/"))
    original = load_digits()
    assert records.targets[7] == original.target[number]
    assert np.abs(pixels[7, ..., 1] / 255 - original.images[number] / 16).max() < 0.002
    assert pixels.max() == 255


def test_splits_do_not_overlap() -> None:
    module = digits()
    names = [set(module.records(split).ids) for split in ("train", "val", "test")]
    assert len(set.union(*names)) == 1797 == sum(map(len, names))


def test_shots() -> None:
    module = digits(shots=10)
    assert np.bincount(module.targets("train")).tolist() == [10] * 10
    assert set(digits(shots=5).records("train").ids) < set(module.records("train").ids)
    assert module.sizes["val"] == 359


@pytest.mark.parametrize("augment", ["none", "light", "randaug"])
def test_digits_are_never_mirrored(augment: str) -> None:
    module = digits(augment=augment)
    module.configure(InputSpec(height=32, width=32))
    assert not module.augmentation.flip
    with pytest.raises(DataError, match="mirrored digit"):
        digits(flip=True)


def test_without_a_test_fraction_there_is_no_test_split() -> None:
    module = digits(test_fraction=0.0)
    assert not module.has_test
    assert set(module.sizes) == {"train", "val"}
    module.configure(InputSpec(height=8, width=8))
    with pytest.raises(DataError, match=r"digits has no test split .*test_fraction=0\.2 carves one"):
        module.test_dataloader()
