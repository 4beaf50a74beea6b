"""Published data sets: clear errors without a network, and reading what was downloaded."""

import json
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from torchvision import datasets

from headstart.data import CIFAR10, InputSpec, Pets, Torchvision
from headstart.data.sources.torchvision_sets import SETS
from headstart.errors import DataError
from headstart.system import network as download

CONF = Path(__file__).parents[4] / "conf" / "datamodule"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)


def published(name: str, folder: Path, **choices: Any) -> Torchvision:
    return Torchvision(**({"name": name, "batch_size": 2, "seed": 0, "data_dir": folder, "num_workers": 0} | choices))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", sorted(SETS))
@pytest.mark.parametrize("download", [True, False])
def test_what_is_not_there_is_told_with_what_can_be_done(name: str, download: bool, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        published(name, tmp_path, download=download).prepare()
    message = str(caught.value)
    assert f"datamodule={name} is not in {tmp_path}" in message
    if name == "cars":
        options = ["cannot be downloaded any more", "stanford_cars/devkit", "paths.data_dir=PATH"]
    else:
        options = (
            ["server is not reachable", "datamodule=digits", "datamodule.root=", "paths.data_dir="]
            if download
            else ["datamodule.download=true fetches it (", " MB)", "paths.data_dir=PATH"]
        )
    assert [option for option in options if option not in message] == []
    assert "://" not in message
    assert list(tmp_path.iterdir()) == []


def test_every_set_is_one_of_torchvisions_with_an_address() -> None:
    for about in SETS.values():
        kind = getattr(datasets, about.dataset)
        assert about.url is None or about.url(kind).startswith("http")


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


def write_image(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_dtd(root: Path) -> None:
    folder = root / "dtd" / "dtd"
    for split, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 9)}.items():
        names = [f"{kind}/{kind}_{number:04d}.jpg" for kind in ("banded", "woven") for number in numbers]
        write_lines(folder / "labels" / f"{split}1.txt", names)
        for number, name in enumerate(names):
            write_image(folder / "images" / name, number)


def write_aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    write_lines(folder / "variants.txt", ["707-320", "A380"])
    for place, split in enumerate(("train", "val", "test")):
        names = [f"{place}{number:03d}" for number in range(4)]
        lines = [f"{name} {'A380' if number % 2 else '707-320'}" for number, name in enumerate(names)]
        write_lines(folder / f"images_variant_{split}.txt", lines)
        for number, name in enumerate(names):
            write_image(folder / "images" / f"{name}.jpg", number)


def write_food101(root: Path) -> None:
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for split, numbers in {"train": range(10), "test": range(10, 13)}.items():
        listed = {dish: [f"{dish}/{number}" for number in numbers] for dish in ("pho", "baklava")}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for names in listed.values():
            for number, name in enumerate(names):
                write_image(folder / "images" / f"{name}.jpg", number)


def write_eurosat(root: Path) -> None:
    for kind in ("Forest", "River"):
        for number in range(10):
            write_image(root / "eurosat" / "2750" / kind / f"{kind}_{number}.jpg", number)


def write_caltech101(root: Path) -> None:
    for kind in ("BACKGROUND_Google", "Faces", "yin_yang"):
        for number in range(1, 36):
            write_image(root / "caltech101" / "101_ObjectCategories" / kind / f"image_{number:04d}.jpg", number)


def write_cars(root: Path) -> None:
    from scipy.io import savemat

    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["Acura RL 2012", "BMW M3"], dtype=object)})
    for split, file in {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}.items():
        kind = [("fname", object), ("class", np.uint8)]
        rows = np.array([(f"{number:05d}.jpg", 1 + number % 2) for number in range(10)], dtype=kind)
        savemat(folder / file, {"annotations": rows})
        for number in range(10):
            write_image(folder / f"cars_{split}" / f"{number:05d}.jpg", number)


READ = {
    "dtd": (write_dtd, {"train": 8, "val": 4, "test": 6}, ("banded", "woven"), "dtd/dtd/images/banded/banded_0006.jpg"),
    "aircraft": (
        write_aircraft,
        {"train": 4, "val": 4, "test": 4},
        ("707-320", "A380"),
        "fgvc-aircraft-2013b/data/images/2000.jpg",
    ),
    "food101": (
        write_food101,
        {"train": 18, "val": 2, "test": 6},
        ("baklava", "pho"),
        "food-101/images/pho/10.jpg",
    ),
    "eurosat": (write_eurosat, {"train": 12, "val": 4, "test": 4}, ("Forest", "River"), None),
    "caltech101": (write_caltech101, {"train": 48, "val": 12, "test": 10}, ("Faces", "yin_yang"), None),
    "cars": (
        write_cars,
        {"train": 8, "val": 2, "test": 10},
        ("Acura RL 2012", "BMW M3"),
        "stanford_cars/cars_test/00000.jpg",
    ),
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", READ)
def test_files_are_read_with_the_published_splits(name: str, tmp_path: Path) -> None:
    write, sizes, classes, first = READ[name]
    write(tmp_path)
    yaml = OmegaConf.load(CONF / f"{name}.yaml")
    fractions = {key: yaml[key] for key in ("val_fraction", "test_fraction") if key in yaml}  # type: ignore[operator]
    module = published(name, tmp_path, **fractions)
    assert module.sizes == sizes
    assert module.classes == classes
    assert first is None or module.records("test").ids[0] == first
    assert module.summary()["usual_metric"] == SETS[name].metric
    module.configure(InputSpec(height=16, width=16))
    batch = next(iter(module.test_dataloader()))
    assert batch["images"].shape == (2, 3, 16, 16)
    labels = {"Forest": 0, "River": 1, "Faces": 0, "yin_yang": 1}
    for number, path in enumerate(module.records("test").ids):
        parent = Path(path).parent.name
        assert module.targets("test")[number] == labels.get(parent, module.targets("test")[number])


@pytest.mark.usefixtures("no_network")
def test_caltechs_training_images_are_drawn_by_the_split_seed(tmp_path: Path) -> None:
    write_caltech101(tmp_path)
    tests = [set(published("caltech101", tmp_path, split_seed=seed).records("test").ids) for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


@pytest.mark.usefixtures("no_network")
def test_svhn_and_cifar100_are_read_from_their_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    for module_name in ("cifar", "svhn"):
        monkeypatch.setattr(f"torchvision.datasets.{module_name}.check_integrity", lambda *_: True)
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        images = generator.integers(0, 256, (32, 32, 3, 40), dtype=np.uint8)
        images[0, 0, :, :] = np.arange(40)  # the pixel that says which image it is
        savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": np.arange(40)[:, None] % 10 + 1})
    module = published("svhn", tmp_path, val_fraction=0.1)
    assert module.sizes == {"train": 30, "val": 10, "test": 40}
    records = module.records("test")
    assert [records.images[number][0, 0].tolist() for number in (0, 9)] == [[0] * 3, [9] * 3]
    assert (module.classes, records.targets[:10].tolist()) == (tuple("0123456789"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for split, count in (("train", 400), ("test", 100)):
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        entry = {"data": pixels, "fine_labels": [number % 100 for number in range(count)]}
        (folder / split).write_bytes(pickle.dumps(entry))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"c{number:02d}" for number in range(100)]}))
    assert published("cifar100", tmp_path).sizes == {"train": 300, "val": 100, "test": 100}


@pytest.fixture
def svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in with the file format of SVHN: 2,600 digits to train on, 60 to test."""
    from scipy.io import savemat

    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
    generator = np.random.default_rng(0)
    for split, count in (("train", 2600), ("test", 60)):
        images = generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": np.arange(count)[:, None] % 10 + 1})
    return tmp_path


@pytest.mark.usefixtures("no_network")
def test_the_rule_of_vtab_takes_1000_images(svhn: Path) -> None:
    choose = published("svhn", svhn, val_fraction=0.1, vtab_1k="choose")
    assert choose.sizes == {"train": 800, "val": 200, "test": 60}
    whole = published("svhn", svhn, val_fraction=0.1)
    ids = {split: set(choose.records(split).ids) for split in choose.sizes}
    assert ids["train"] < set(whole.records("train").ids)
    assert ids["val"] < set(whole.records("val").ids)
    assert ids["test"] == set(whole.records("test").ids)
    assert choose.summary()["usual_metric"] == "acc"
    counts = np.bincount(choose.targets("train"), minlength=10)
    # Drawn evenly over all images, so that classes differ as chance has it: hypergeometric, not ten times 80.
    assert counts.std() > 0
    assert np.square(counts - 80).sum() / 80 < 30
    again = published("svhn", svhn, val_fraction=0.1, vtab_1k="choose")
    assert again.summary() == choose.summary()
    other = published("svhn", svhn, val_fraction=0.1, vtab_1k="choose", split_seed=1)
    assert set(other.records("train").ids) != ids["train"]
    final = published("svhn", svhn, val_fraction=0.1, vtab_1k="final")
    assert set(final.records("train").ids) == ids["train"] | ids["val"]
    assert final.sizes == {"train": 1000, "val": 200, "test": 60}
    target = dict(zip(whole.records("val").ids, whole.targets("val").tolist(), strict=True))
    for name, one in zip(final.records("train").ids[800:], final.targets("train")[800:].tolist(), strict=True):
        assert target[name] == one
    final.configure(InputSpec(height=16, width=16))
    assert next(iter(final.train_dataloader()))["images"].shape == (2, 3, 16, 16)


@pytest.mark.usefixtures("no_network")
def test_the_rule_of_vtab_needs_its_images(svhn: Path) -> None:
    with pytest.raises(DataError, match=r"vtab_1k takes 200 images of the val split of svhn, which has 130; .*val_fra"):
        published("svhn", svhn, val_fraction=0.05, vtab_1k="choose").prepare()
    with pytest.raises(DataError, match=r"datamodule.shots=5 and datamodule.vtab_1k=final both say how many"):
        published("svhn", svhn, val_fraction=0.1, vtab_1k="final", shots=5).prepare()
    with pytest.raises(DataError, match=r"datamodule\.vtab_1k=1000"):
        published("svhn", svhn, vtab_1k="1000")


@pytest.mark.network
@pytest.mark.slow
def test_cifar10_is_downloaded(tmp_path: Path) -> None:
    module = CIFAR10(batch_size=4, seed=0, data_dir=tmp_path, val_fraction=0.1)
    assert module.sizes == {"train": 45_000, "val": 5_000, "test": 10_000}


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize(("name", "total", "classes"), [("flowers102", 8_189, 102), ("pets", 7_349, 37)])
def test_photographs_are_downloaded(name: str, total: int, classes: int, tmp_path: Path) -> None:
    module = published(name, tmp_path)
    assert sum(module.sizes.values()) == total
    assert len(module.classes) == classes
