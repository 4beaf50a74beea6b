"""CIFAR-10, Flowers and Pets: clear errors without a network, and reading what was downloaded."""

import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from headstart.data import CIFAR10, Flowers102, InputSpec, Pets
from headstart.data.torchvision_sets import TorchvisionDataModule
from headstart.errors import DataError
from headstart.system import network as download


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", [CIFAR10, Flowers102, Pets])
def test_without_a_network_the_options_are_named(kind: type[TorchvisionDataModule], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        kind(batch_size=2, seed=0, data_dir=tmp_path).prepare()
    message = str(caught.value)
    assert f"datamodule={kind.name} is not in {tmp_path}" in message
    assert all(option in message for option in ("datamodule=digits", "datamodule.root=", "paths.data_dir="))
    assert "://" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_breaks_off_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(*_: Any, **__: Any) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(download, "reachable", lambda _: True)
    monkeypatch.setattr(datasets.CIFAR10, "download", break_off)
    with pytest.raises(DataError, match=r"download of datamodule=cifar10 .* failed: File not found or corrupted"):
        CIFAR10(batch_size=2, seed=0, data_dir=tmp_path).prepare()
    assert socket.getdefaulttimeout() is None


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small stand-in with the file format of CIFAR-10."""
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, _ in [*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list]:
        entry = {
            "data": generator.integers(0, 256, (40, 3072), dtype=np.uint8),
            "labels": [number % 10 for number in range(40)],
        }
        (folder / name).write_bytes(pickle.dumps(entry))
    names = {"label_names": ["plane", "car", *"bcdefghi"]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    return tmp_path


@pytest.mark.usefixtures("no_network")
def test_cifar10_is_read_without_a_network(cifar10: Path) -> None:
    module = CIFAR10(batch_size=4, seed=0, data_dir=cifar10, val_fraction=0.1, num_workers=0)
    assert module.sizes == {"train": 180, "val": 20, "test": 40}
    assert module.classes[:2] == ("plane", "car")
    module.configure(InputSpec(height=32, width=32, crop_pct=1.0))
    assert next(iter(module.test_dataloader()))["images"].shape == (4, 3, 32, 32)
    assert module.records("test").ids[3] == "cifar10/test/03"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A small stand-in with the tree of Oxford-IIIT Pet."""
    folder = tmp_path / "oxford-iiit-pet"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in (("trainval", 10), ("test", 3)):
        lines = []
        for label, breed in enumerate(("Abyssinian", "great_pyrenees"), start=1):
            for number in range(count):
                name = f"{breed}_{split}{number}"
                pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / f"{name}.jpg")
                lines.append(f"{name} {label} {label} 1")
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.usefixtures("no_network")
def test_pets_are_read_without_a_network(pets: Path) -> None:
    module = Pets(batch_size=4, seed=0, data_dir=pets)
    assert module.sizes == {"train": 16, "val": 4, "test": 6}
    assert module.classes == ("Abyssinian", "Great Pyrenees")
    assert module.records("test").ids[0] == "oxford-iiit-pet/images/Abyssinian_test0.jpg"


@pytest.mark.usefixtures("no_network")
def test_an_interrupted_download_is_noticed(pets: Path) -> None:
    (pets / "oxford-iiit-pet" / "images" / "Abyssinian_test0.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 26 images are missing.*Remove .*oxford-iiit-pet and run again"):
        Pets(batch_size=4, seed=0, data_dir=pets).prepare()


@pytest.mark.network
@pytest.mark.slow
def test_cifar10_is_downloaded(tmp_path: Path) -> None:
    module = CIFAR10(batch_size=4, seed=0, data_dir=tmp_path, val_fraction=0.1)
    assert module.sizes == {"train": 45_000, "val": 5_000, "test": 10_000}


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "total", "classes"), [(Flowers102, 8_189, 102), (Pets, 7_349, 37)])
def test_photographs_are_downloaded(
    kind: type[TorchvisionDataModule], total: int, classes: int, tmp_path: Path
) -> None:
    module = kind(batch_size=4, seed=0, data_dir=tmp_path)
    assert sum(module.sizes.values()) == total
    assert len(module.classes) == classes
