"""Images in tar files are read in place, as the same images in folders are."""

import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.data import InputSpec, WebDataset
from headstart.errors import DataError


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_shard(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def samples(start: int, count: int, classes: int = 2) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number in range(start, start + count):
        found |= {f"{number:04d}.png": picture(number), f"{number:04d}.cls": str(number % classes).encode()}
    return found


def data(root: Path, **choices: Any) -> WebDataset:
    return WebDataset(**({"root": root, "batch_size": 4, "seed": 0, "num_workers": 0, "image_size": 12} | choices))


@pytest.mark.parametrize("names", ["{}/a.tar", "{}-000000.tar", "{}/deep/b.tar"])
def test_splits_are_those_of_the_names(tmp_path: Path, names: str):
    for start, (split, count) in enumerate({"train": 8, "validation": 4, "test": 6}.items()):
        write_shard(tmp_path / names.format(split), samples(100 * start, count))
    module = data(tmp_path)
    assert module.sizes == {"train": 8, "val": 4, "test": 6}
    assert module.classes == ("0", "1")
    module.configure(InputSpec(crop_pct=1.0, mean=(0, 0, 0), std=(1, 1, 1)))
    (batch,) = list(module.val_dataloader())
    assert batch["targets"].tolist() == [0, 1, 0, 1]
    with Image.open(io.BytesIO(picture(101))) as image:
        wanted = module.eval_transform(image)
    assert torch.equal(batch["images"][1], wanted)


def test_without_names_splits_are_carved_and_classes_are_in_natural_order(tmp_path: Path):
    write_shard(tmp_path / "000.tar", samples(0, 60, classes=12))
    write_shard(tmp_path / "001.tar", samples(60, 60, classes=12))
    module = data(tmp_path, test_fraction=0.2)
    assert module.sizes == {"train": 72, "val": 24, "test": 24}
    assert module.classes == tuple(map(str, range(12)))
    for split in module.sizes:
        for name, target in zip(module.records(split).ids, module.targets(split), strict=True):
            assert int(name.rpartition("/")[2]) % 12 == target
    assert module.summary()["shards"] == 2
    again = data(tmp_path, test_fraction=0.2)
    assert again.summary() == module.summary()
    assert pickle.loads(pickle.dumps(module.records("train").images[3])).draw().shape == (12, 16, 3)


def test_targets_are_read_from_fields_and_texts(tmp_path: Path):
    found: dict[str, bytes] = {}
    for number in range(10):
        label = {"tags": ["a", "b"][: number % 3], "age": number / 2}
        found |= {f"x/{number}.json": json.dumps(label).encode(), f"x/{number}.png": picture(number)}
    write_shard(tmp_path / "0.tar", found)
    labels = data(tmp_path, task="multilabel", target="json.tags", fraction=None)
    assert labels.classes == ("a", "b")
    numbers = data(tmp_path, task="regression", target="json.age")
    assert sorted(numbers.targets("train")[:, 0].tolist() + numbers.targets("val")[:, 0].tolist()) == [
        n / 2 for n in range(10)
    ]
    assert numbers.records("train").ids[0].startswith("0/x/")


def test_damaged_images_and_other_members_are_left_out(tmp_path: Path):
    members = samples(0, 20)
    members["0003.png"] = members["0003.png"][:60]
    members |= {"readme.txt": b"hello", "noimage.cls": b"5", "._0004.png": b"of another system"}
    write_shard(tmp_path / "0.TAR", members)
    for name in ("._0.TAR", "@eaDir/0.tar"):  # that systems leave beside files
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no tar file")
    module = data(tmp_path)
    assert sum(module.sizes.values()) == 19
    assert [entry["path"] for entry in module.summary()["skipped"]] == ["0/0003"]
    assert data(tmp_path).summary() == module.summary()  # the second look is remembered


@pytest.mark.parametrize(
    ("members", "choices", "match"),
    [
        ({"0.png": picture(0)}, {}, r"a.tar: 0 has no .cls, only png; .*datamodule.target"),
        ({"0.png": picture(0), "0.jpg": b"", "0.cls": b"1"}, {}, "0 has 2 images"),
        ({"0.cls": b"1"}, {}, "its 1 tar files have no images"),
        ({"0.png": picture(0), "0.cls": b"\xff"}, {}, "0.cls cannot be read"),
        ({"0.png": picture(0), "0.json": b"{}"}, {"target": "json.label"}, "0.json has no field label"),
        ({"0.png": picture(0), "0.json": b"[" * 100_000}, {"target": "json.label"}, "0.json cannot be read"),
        ({"0.png": picture(0), "0.json": b"9" * 5000}, {"target": "json.label"}, "0.json cannot be read"),
        ({"0.png": picture(0), "0.json": b'{"a": null}'}, {"target": "json.a"}, "0 in a.tar: json.a is empty; give"),
        ({"0.png": picture(0), "0.cls": b"old"}, {"task": "regression"}, "0 in a.tar: cls=old is not a finite number"),
    ],
)
def test_mistakes_are_told_by_their_place(tmp_path: Path, members: dict, choices: dict, match: str):
    write_shard(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=match):
        data(tmp_path, **choices).prepare()


def test_what_is_no_set_of_shards_is_told(tmp_path: Path):
    with pytest.raises(DataError, match="has no tar files"):
        data(tmp_path).prepare()
    write_shard(tmp_path / "train-0.tar", samples(0, 8))
    write_shard(tmp_path / "more.tar", samples(8, 8))
    with pytest.raises(DataError, match=r"train-0.tar is of the split train by name and more.tar of none"):
        data(tmp_path).prepare()
    (tmp_path / "more.tar").unlink()
    content = (tmp_path / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(content[: 512 + 100])
    with pytest.raises(DataError, match="is damaged, or no plain tar file"):
        data(tmp_path).prepare()


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_member_of_less_than_no_bytes_ends_the_reading(tmp_path: Path, place: int):
    """Followed, its size leads back to where it began."""
    shard = write_shard(tmp_path / "a.tar", samples(0, 4))
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as file:
        header = file.getmembers()[place].offset
    content[header + 124 : header + 136] = (-1024).to_bytes(12, "big", signed=True)
    content[header + 148 : header + 156] = b" " * 8
    content[header + 148 : header + 156] = f"{sum(content[header : header + 512]):06o}\0 ".encode()
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar is damaged, or no plain tar file"):
        data(tmp_path).prepare()


def test_transparency_is_a_channel_where_four_are_asked_for(tmp_path: Path):
    found: dict[str, bytes] = {}
    for number in range(20):
        file = io.BytesIO()
        Image.new("RGBA", (8, 8), (200, 100, 50, 100)).save(file, "PNG")
        found |= {f"{number:04d}.png": file.getvalue() + bytes(number), f"{number:04d}.cls": str(number % 2).encode()}
    write_shard(tmp_path / "a.tar", found)
    for channels, pixel in ((4, (200, 100, 50, 100)), (3, (233, 194, 175))):
        module = data(tmp_path, on_leak="ignore")
        values = (0.0,) * channels, (1.0,) * channels
        module.configure(InputSpec(channels=channels, crop_pct=1.0, mean=values[0], std=values[1]))
        image = module.dataset("train").image(0)
        assert image.getpixel((4, 4)) == pytest.approx(pixel, abs=1)
