"""Some of the classes, and classes that are numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.data import Digits, Folder
from headstart.errors import DataError


def digits(**choices) -> Digits:
    return Digits(batch_size=8, seed=0, **choices)


def test_only_some_classes_keep_their_images_and_their_splits():
    module, whole = digits(classes=[8, "3"]), digits()
    assert module.classes == ("3", "8")
    for split in ("train", "val", "test"):
        records, everything = module.records(split), whole.records(split)
        wanted = np.isin(everything.targets, [3, 8])
        assert records.ids == [name for name, kept in zip(everything.ids, wanted, strict=True) if kept]
        np.testing.assert_array_equal(np.array([3, 8])[records.targets], everything.targets[wanted])
    with pytest.raises(DataError, match="no class 11"):
        digits(classes=[1, 11]).prepare()


def test_classes_that_are_numbers_are_a_quantity_of_a_regression():
    module = digits(task="regression", shots=2)
    assert module.classes == ("value",)
    assert sorted(module.targets("train").ravel().tolist()) == sorted([*range(10)] * 2)
    assert module.targets("train").shape == (20, 1)


@pytest.mark.parametrize("names", [("1700000000", "1700000001"), ("1e39", "2e39")])
def test_numbers_that_32_bits_would_make_one_are_kept_apart(image_folder: Callable[..., Path], names: tuple[str, str]):
    data = Folder(root=image_folder(classes=names), task="regression", batch_size=8, seed=0)
    assert sorted(set(data.targets("train").ravel().tolist())) == [*map(float, names)]


@pytest.mark.parametrize("name", ["nan", "inf", "old"])
def test_a_class_whose_name_is_no_finite_number_is_no_quantity(image_folder: Callable[..., Path], name: str):
    with pytest.raises(DataError, match="name the classes by finite numbers"):
        Folder(root=image_folder(classes=("1", name)), task="regression", batch_size=8, seed=0).prepare()
