"""Some of the classes, and classes that are numbers."""

import numpy as np
import pytest

from headstart.data import Digits
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
