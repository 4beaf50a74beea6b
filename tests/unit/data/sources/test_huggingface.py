"""Data sets of Hugging Face's library, from folders; without a network the hub is told in a line."""

import importlib.util
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.data import HuggingFace, InputSpec
from headstart.data.sources.encoded import looked_at
from headstart.data.sources.huggingface import Row
from headstart.errors import DataError


def data(**choices: Any) -> HuggingFace:
    return HuggingFace(**({"batch_size": 4, "seed": 0, "num_workers": 0, "image_size": 8} | choices))


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def encoded(number: int) -> dict[str, Any]:
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(numbers: range, **columns: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), **{name: feature for name, (feature, _) in columns.items()}}
    values = {name: [value(number) for number in numbers] for name, (_, value) in columns.items()}
    content = {"image": [encoded(number) for number in numbers], **values}
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def labelled(numbers: range) -> Any:
    datasets = pytest.importorskip("datasets")
    return table(numbers, label=(datasets.ClassLabel(names=["zebra", "ant"]), lambda number: number % 2))


def check_images(module: HuggingFace, first: int) -> None:
    module.configure(InputSpec(crop_pct=1.0, mean=(0, 0, 0), std=(1, 1, 1)))
    batch = next(iter(module.test_dataloader()))
    wanted = torch.stack([module.eval_transform(picture(first + place)) for place in range(len(batch["images"]))])
    assert torch.equal(batch["images"], wanted)


@pytest.mark.parametrize("how", ["save_to_disk", "parquet"])
def test_a_folder_with_splits(tmp_path: Path, how: str):
    datasets = pytest.importorskip("datasets")
    splits = {"train": labelled(range(10)), "validation": labelled(range(20, 24)), "test": labelled(range(30, 36))}
    if how == "save_to_disk":
        datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "set"))
    else:
        (tmp_path / "set" / "data").mkdir(parents=True)
        for split, part in splits.items():
            part.to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    module = data(root=tmp_path / "set")
    assert module.sizes == {"train": 10, "val": 4, "test": 6}
    assert module.classes == ("zebra", "ant")
    assert module.targets("test").tolist() == [0, 1] * 3
    check_images(module, 30)
    assert data(root=tmp_path / "set").summary() == module.summary()


def test_a_folder_of_images_whose_bytes_stay_there(tmp_path: Path):
    pytest.importorskip("datasets")
    for number in range(20):
        path = tmp_path / "set" / ("b" if number % 2 else "a") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    module = data(root=tmp_path / "set", test_fraction=0.2)
    assert module.sizes == {"train": 12, "val": 4, "test": 4}
    assert module.classes == ("a", "b")
    before = module.summary()["content"]
    picture(99).save(tmp_path / "set" / "a" / "00.png")
    assert data(root=tmp_path / "set", test_fraction=0.2).summary()["content"] != before


def test_labels_numbers_and_texts_are_targets(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    several = datasets.Sequence(datasets.ClassLabel(names=["x", "y"]))
    found = table(
        range(12),
        tags=(several, lambda number: [0, 1][: number % 3]),
        age=(datasets.Value("float32"), lambda number: number / 2),
        kind=(datasets.Value("string"), lambda number: ["cat", "ant"][number % 2]),
    )
    found.save_to_disk(str(tmp_path / "set"))
    module = data(root=tmp_path / "set", task="multilabel")
    assert module.classes == ("x", "y")
    assert {tuple(row) for row in module.targets("train").tolist()} == {(0, 0), (1, 0), (1, 1)}
    numbers = data(root=tmp_path / "set", task="regression", label_column="age")
    assert numbers.targets("train").shape[1] == 1
    assert data(root=tmp_path / "set", label_column="kind").classes == ("ant", "cat")
    with pytest.raises(DataError, match="has several tags an image; use task=multilabel"):
        data(root=tmp_path / "set").prepare()
    with pytest.raises(DataError, match=r"has no column weight; it has image, tags, age, kind. Set datamodule.label"):
        data(root=tmp_path / "set", label_column="weight").prepare()
    with pytest.raises(DataError, match=r"row 1 of train: kind=cat is not a finite number"):
        data(root=tmp_path / "set", task="regression", label_column="kind").prepare()


def test_a_test_split_without_labels_and_a_damaged_image_are_left_out(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    secret = table(range(3), label=(datasets.ClassLabel(names=["zebra", "ant"]), lambda number: -1))
    rows = labelled(range(12)).cast_column("image", datasets.Image(decode=False)).to_dict()
    rows["image"][5]["bytes"] = rows["image"][5]["bytes"][:50]
    train = datasets.Dataset.from_dict(rows, features=labelled(range(1)).features)
    datasets.DatasetDict({"train": train, "test": secret}).save_to_disk(str(tmp_path / "set"))
    module = data(root=tmp_path / "set")
    assert sum(module.sizes.values()) == 11
    assert not module.has_test
    summary = module.summary()
    assert summary["ignored_splits"] == ["test"]
    assert [entry["path"] for entry in summary["skipped"]] == ["train/05"]


def test_what_is_no_data_set_is_told(tmp_path: Path):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.md").write_text("nothing")
    with pytest.raises(DataError, match=r"datamodule.root=.*set cannot be read by Hugging Face's datasets \("):
        data(root=tmp_path / "set").prepare()


def test_the_hub_out_of_reach_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("datasets")
    monkeypatch.setattr("headstart.data.sources.huggingface.reachable", lambda url: False)
    with pytest.raises(DataError, match=r"datamodule.name=nobody/nothing is not in the cache .* not reachable"):
        data(name="nobody/nothing").prepare()


@pytest.mark.parametrize("choices", [{}, {"root": ".", "name": "a/b"}])
def test_one_of_folder_and_name_is_given(choices: dict):
    with pytest.raises(DataError, match="give one of them"):
        data(**choices)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "datasets" else found(name))
    with pytest.raises(DataError, match=r"needs datasets: pip install 'headstart\[hf\]'"):
        data(root=tmp_path).prepare()


def test_a_row_that_names_no_file_is_left_out(tmp_path: Path):
    """A table from anywhere may name a pipe, a device or nothing."""
    picture(0).save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    names = [str(tmp_path / "good.png"), str(tmp_path / "pipe.png"), "/dev/zero", str(tmp_path / "none.png"), None]
    rows = [Row([{"image": {"bytes": None, "path": name}} for name in names], place, 1000) for place in range(5)]
    (_, good), *others = looked_at(rows, None, None, 1000, total=5)
    assert not good
    assert [error for _, error in others[:2]] == ["it is a pipe, not a file", "it is a device, not a file"]
    assert all(error for _, error in others)
