"""Stratified splits and subsets."""

import numpy as np
import pytest

from headstart.data.splits import carve, subset
from headstart.errors import DataError

CLASSES = ("ant", "bee", "cat")
COUNTS = (40, 21, 10)
TARGETS = np.repeat(np.arange(3), COUNTS)
IDS = [f"{CLASSES[target]}/{position:03d}.png" for position, target in enumerate(TARGETS)]


def carved(**changes: float) -> dict[str, np.ndarray]:
    choices = {"val_fraction": 0.2, "test_fraction": 0.1, "split_seed": 0} | changes
    return carve(IDS, TARGETS, CLASSES, **choices)


def chosen(**changes: float | None) -> set[int]:
    return set(subset(IDS, TARGETS, CLASSES, **({"shots": None, "fraction": None, "split_seed": 0} | changes)).tolist())


def test_parts_are_disjoint_complete_and_stratified() -> None:
    parts = carved()
    together = np.concatenate(list(parts.values()))
    assert sorted(together.tolist()) == list(range(len(IDS)))
    assert np.bincount(TARGETS[parts["val"]]).tolist() == [8, 4, 2]
    assert np.bincount(TARGETS[parts["test"]]).tolist() == [4, 2, 1]


def test_the_split_is_pinned() -> None:
    """Another version of anything must not move an image to another split: that would change every result."""
    assert carved()["test"].tolist() == [0, 5, 11, 33, 58, 59, 66]


def test_split_seed_changes_the_split_and_order_of_listing_does_not() -> None:
    assert carved(split_seed=1)["val"].tolist() != carved()["val"].tolist()
    back = np.arange(len(IDS))[::-1]
    reverse = carve([IDS[i] for i in back], TARGETS[back], CLASSES, val_fraction=0.2, test_fraction=0.1, split_seed=0)
    assert {IDS[back[i]] for i in reverse["test"]} == {IDS[i] for i in carved()["test"]}


def test_test_images_do_not_depend_on_the_validation_share() -> None:
    assert carved(val_fraction=0.4)["test"].tolist() == carved()["test"].tolist()


def test_one_more_image_moves_at_most_one_image_a_split() -> None:
    before = {IDS[i] for i in carved()["val"]}
    more = carve(
        [*IDS, "cat/new.png"], np.append(TARGETS, 2), CLASSES, val_fraction=0.2, test_fraction=0.1, split_seed=0
    )
    after = {([*IDS, "cat/new.png"])[i] for i in more["val"]}
    assert len(before - after) <= 1


def test_without_a_test_fraction_there_is_no_test_split() -> None:
    assert set(carved(test_fraction=0.0)) == {"train", "val"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "below 1"),
    ],
)
def test_impossible_fractions(changes: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        carved(**changes)


def test_a_class_too_small_to_split_is_named() -> None:
    with pytest.raises(DataError, match=r"class bee has 1 image.*at least 2"):
        carve(["a", "b", "c"], np.array([0, 0, 1]), ["ant", "bee"], val_fraction=0.2, test_fraction=0, split_seed=0)


@pytest.mark.parametrize(("classes", "hinted"), [(["1.5", "2.5"], True), (["ant", "2.5"], False)])
def test_numbers_that_are_taken_for_classes_are_noticed(classes: list[str], hinted: bool) -> None:
    with pytest.raises(DataError) as caught:
        carve(["a", "b", "c"], np.array([0, 0, 1]), classes, val_fraction=0.2, test_fraction=0, split_seed=0)
    assert ("task=regression" in str(caught.value)) is hinted


def test_shots_are_per_class_and_nested() -> None:
    five, ten = chosen(shots=5), chosen(shots=10)
    assert np.bincount(TARGETS[sorted(five)]).tolist() == [5, 5, 5]
    assert np.bincount(TARGETS[sorted(ten)]).tolist() == [10, 10, 10]
    assert five < ten
    assert chosen(shots=5, split_seed=1) != five


def test_fraction_is_stratified_nested_and_keeps_every_class() -> None:
    half, tenth = chosen(fraction=0.5), chosen(fraction=0.1)
    assert np.bincount(TARGETS[sorted(half)]).tolist() == [20, 11, 5]
    assert tenth < half
    assert np.bincount(TARGETS[sorted(chosen(fraction=0.01))]).tolist() == [1, 1, 1]
    assert chosen() == chosen(fraction=1.0) == set(range(len(IDS)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": 5, "fraction": 0.5}, "exclude each other"),
        ({"shots": 11}, "exceeds the 10 training images of class cat"),
    ],
)
def test_impossible_subsets(changes: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        chosen(**changes)
