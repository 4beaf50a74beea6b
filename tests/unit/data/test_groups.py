"""What belongs together stays together: groups in splits and folds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from headstart.data import CSV, Folder
from headstart.data.leakage import divide_groups
from headstart.errors import DataError

FIXED = {"batch_size": 4, "seed": 0}


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Two classes, ten patients each with one to four different images."""
    rng = np.random.default_rng(0)
    for kind in ("ill", "well"):
        (tmp_path / kind).mkdir()
        for patient in range(10):
            for view in range(1 + patient % 4):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / kind / f"{kind}{patient}_{view}.png")
    return tmp_path


def patients_of(module: Folder, split: str) -> set[str]:
    return {Path(name).name.partition("_")[0] for name in module.records(split).ids}


def test_no_group_is_in_two_splits(patients: Path):
    plain = Folder(root=patients, test_fraction=0.2, **FIXED)
    assert patients_of(plain, "train") & patients_of(plain, "test"), "without groups they are mixed"
    module = Folder(root=patients, test_fraction=0.2, group_pattern=r"(\w+)_", **FIXED)
    apart = [patients_of(module, split) for split in ("train", "val", "test")]
    assert sum(map(len, apart)) == len(set.union(*apart)) == 20
    assert sum(module.sizes.values()) == sum(plain.sizes.values())
    # Each split has near its share of each class.
    for split, share in (("val", 0.2), ("test", 0.2)):
        counts = np.bincount(module.targets(split), minlength=2)
        assert np.abs(counts - share * 23).max() <= 2, (split, counts)


@pytest.mark.parametrize("split_seed", range(5))
def test_a_rare_class_is_in_every_split_that_its_groups_suffice_for(tmp_path: Path, split_seed: int):
    """By shares alone all its groups would go to the training: one is more than validation should have."""
    rng = np.random.default_rng(0)
    for kind, scenes in (("usual", 40), ("rare", 3)):
        (tmp_path / kind).mkdir()
        for number in range(3 * scenes):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{kind}{number // 3}_{number}.png")
    choices = {"val_fraction": 0.1, "test_fraction": 0.1, "group_pattern": r"(\w+)_", "split_seed": split_seed}
    module = Folder(root=tmp_path, **choices, **FIXED)
    assert [np.bincount(module.targets(split))[0] for split in ("train", "val", "test")] == [3, 3, 3]
    apart = [patients_of(module, split) for split in ("train", "val", "test")]
    assert sum(map(len, apart)) == len(set.union(*apart)) == 43


def test_other_seeds_divide_otherwise_and_the_same_alike(patients: Path):
    def test_ids(seed: int) -> list[str]:
        choices = {"test_fraction": 0.2, "group_pattern": r"(\w+)_", "split_seed": seed}
        return Folder(root=patients, **choices, **FIXED).records("test").ids

    assert test_ids(0) == test_ids(0)
    assert len({tuple(test_ids(seed)) for seed in range(5)}) > 2


def test_folds_cover_each_image_once_and_keep_the_classes_even(patients: Path):
    modules = [Folder(root=patients, folds=5, fold=fold, **FIXED) for fold in range(5)]
    tested = [name for module in modules for name in module.records("test").ids]
    assert len(tested) == len(set(tested)) == 46
    for module in modules:
        assert module.sizes["test"] in (9, 10)
        assert np.bincount(module.targets("test")).min() >= 4
        assert not set(module.records("test").ids) & set(module.records("train").ids + module.records("val").ids)
        assert module.summary()["folds"] == 5
    grouped = [Folder(root=patients, folds=5, fold=fold, group_pattern=r"(\w+)_", **FIXED) for fold in range(5)]
    tested = [name for module in grouped for name in module.records("test").ids]
    assert len(tested) == len(set(tested)) == 46
    for module in grouped:
        assert not patients_of(module, "test") & (patients_of(module, "train") | patients_of(module, "val"))
        assert 7 <= module.sizes["test"] <= 12


def test_groups_are_as_even_as_scikit_learn_makes_them():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 60, 900)
    targets = (groups % 3 + rng.integers(0, 2, 900)) % 3

    def unevenness(parts: list[np.ndarray]) -> float:
        counts = np.array([np.bincount(targets[part], minlength=3) for part in parts])
        return float((counts / counts.sum(axis=0)).std(axis=0).mean())

    theirs = [test for _, test in StratifiedGroupKFold(5).split(targets, targets, groups)]
    ours = divide_groups([str(group) for group in groups], targets, [0.2] * 5, 0)
    assert sorted(np.concatenate(ours)) == list(range(900))
    assert unevenness(ours) <= unevenness(theirs) * 1.1 + 1e-3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"folds": 5}, r"fold=null: datamodule.folds=5 has the folds 0 to 4"),
        ({"folds": 5, "fold": 5}, r"fold=5: datamodule.folds=5 has the folds 0 to 4"),
        ({"fold": 1}, r"fold=1 is one of datamodule.folds, which is null"),
        ({"folds": 30, "fold": 0}, r"class ill has 23 image\(s\), too few for datamodule.folds=30"),
        ({"folds": 21, "fold": 0, "group_pattern": r"(\w+)_"}, "has 20 groups, too few for datamodule.folds=21"),
        ({"group_pattern": "("}, "is no regular expression"),
        ({"group_pattern": r"(\w+)_", "val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        (
            {"group_pattern": r"(ill|well)"},
            r"gets no image of class \w+, whose images are in 1 group; groups stay whole",
        ),
        (
            {"group_pattern": r"ill|well", "folds": 2, "fold": 0},
            r"beside fold 0 of 2 gets no image of class \w+, whose",
        ),
        ({"group_pattern": r"well(\d)"}, r"matches 23 of 46 names not, such as ill/ill0_0.png"),
    ],
)
def test_what_cannot_be_is_told(patients: Path, choices: dict, message: str):
    with pytest.raises(DataError, match=message):
        Folder(root=patients, **choices, **FIXED).prepare()


def test_a_group_in_two_splits_of_the_user_is_refused(image_folder: Callable[..., Path]):
    root = image_folder(splits={"train": 4, "val": 2})
    with pytest.raises(DataError, match=r"the groups .* have images in train and in val"):
        Folder(root=root, group_pattern=r"(\d)\.png$", **FIXED).prepare()


def test_a_column_of_groups(patients: Path):
    names = sorted(path.relative_to(patients).as_posix() for path in patients.rglob("*.png"))
    lines = [f"{name},{name.split('/')[0]},{Path(name).name.partition('_')[0]}" for name in names]
    table = patients / "table.csv"
    table.write_text("\n".join(["path,state,patient", *lines]))
    module = CSV(manifest=table, group_column="patient", test_fraction=0.2, **FIXED)
    assert module.classes == ("ill", "well")
    apart = [patients_of(module, split) for split in ("train", "val", "test")]  # type: ignore[arg-type]
    assert sum(map(len, apart)) == len(set.union(*apart)) == 20
    table.write_text("\n".join(["path,state,patient", *lines[:3], lines[3].rpartition(",")[0] + ","]))
    with pytest.raises(DataError, match="line 5: patient is empty"):
        CSV(manifest=table, group_column="patient", **FIXED).prepare()
    with pytest.raises(DataError, match=r"has no column nobody; .* Set datamodule.group_column"):
        CSV(manifest=table, group_column="nobody", **FIXED).prepare()
