"""Ranking whole networks on a data set."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.commands.cli import main
from headstart.data.datamodule import ImageDataModule
from headstart.errors import ConfigError, DataError, WeightsError
from headstart.ranking.rank import Ranking, rank
from headstart.transferability.intervals import Value

NETWORKS = ("resnet18", "resnet18:none")


def digits(tmp_path: Path) -> list[str]:
    return ["datamodule=digits", "datamodule.shots=12", "trainer=cpu", f"paths.output_dir={tmp_path}"]


def test_pretrained_features_come_before_random_ones_and_a_second_call_finds_them(tmp_path: Path):
    first = headstart.rank(*digits(tmp_path), backbones=NETWORKS)
    assert [one.name for one in first.networks] == ["resnet18", "resnet18:none"]
    best, random = first.networks
    assert best.values["logistic"].value > random.values["logistic"].value + 0.05
    assert best.chance > 0.9
    assert best.chance + random.chance == pytest.approx(1)
    assert (best.stored, random.stored) == (False, False)
    assert "leep" in best.values
    assert "leep" not in random.values
    assert (best.source, random.source) == ("bundled:resnet18_tiny_imagenet_64.safetensors", "none")
    # ResNet-18 at 64 px: a twelfth of its 1.8 billion at 224.
    assert best.cost.multiply_adds == pytest.approx(148e6, rel=0.02)
    assert best.cost.parameters == 11_176_512

    again = headstart.rank(*digits(tmp_path), backbones=NETWORKS)
    assert all(one.stored for one in again.networks)
    assert [one.values for one in again.networks] == [one.values for one in first.networks]


def test_only_labels_of_training_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    original = ImageDataModule.targets

    def watched(self: ImageDataModule, split: str) -> np.ndarray:
        asked.append(split)
        return original(self, split)

    monkeypatch.setattr(ImageDataModule, "targets", watched)
    headstart.rank(*digits(tmp_path), "datamodule.test_fraction=0.2", backbones=["resnet18"])
    assert set(asked) == {"train"}


def test_a_folder_needs_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["rank", str(tmp_path / "nowhere")]) == 1
    assert "there is no such folder; give the folder that holds the images" in capsys.readouterr().err


def test_copies_of_an_image_count_once(tmp_path: Path, image_folder):
    root = image_folder(splits={"train": 8, "val": 2})
    for place in (root / "train").glob("*/*.png"):
        place.with_name(f"copy-{place.name}").write_bytes(place.read_bytes())
    found = headstart.rank(
        "datamodule=folder", f"datamodule.root={root}", "trainer=cpu", f"paths.output_dir={tmp_path}",
        backbones=["resnet18"],
    )  # fmt: skip
    assert found.images == 16
    assert found.duplicates == 16


def test_those_as_good_as_the_best_come_before_those_behind_it():
    def network(name: str, low: float, high: float) -> Any:
        return SimpleNamespace(name=name, values={"logme": Value((low + high) / 2, low, high)}, right={})

    networks = (network("best", 0.7, 0.9), network("behind", 0.5, 0.6), network("uncertain", 0.2, 0.8))
    found = Ranking("data", 100, 2, 0, "logme", networks, (), Path())
    assert [one.name for one in found.as_good()] == ["best", "uncertain"]
    assert [one.name for one in found.promising()] == ["best", "uncertain", "behind"]


def test_a_network_that_is_refused_is_told_with_the_reason(tmp_path: Path):
    found = rank(
        digits(tmp_path),
        backbones=["small_cnn:none", "resnet18"],
        refuse=lambda candidate: "too late" if candidate.name == "resnet18" else "",
    )
    assert [one.name for one in found.networks] == ["small_cnn:none"]
    assert [(one.name, one.absent) for one in found.absent] == [("resnet18", "too late")]


def test_the_command_writes_a_table_a_page_and_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["rank", *digits(tmp_path), f"backbones={','.join(NETWORKS)}", "by=knn"]) == 0
    said = capsys.readouterr().out
    assert "resnet18 is the most promising backbone for digits (k-NN" in said
    folder = tmp_path / "rank-digits"
    rows = list(csv.DictReader((folder / "ranking.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["backbone"] for row in rows] == list(NETWORKS)
    assert float(rows[0]["logme"]) > float(rows[1]["logme"])
    page = (folder / "ranking.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "LogME" in page
    assert (folder / "networks.png").stat().st_size > 1000


def test_what_cannot_be_ranked_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="by=logm is no score; did you mean logme"):
        headstart.rank(*digits(tmp_path), by="logm")
    with pytest.raises(ConfigError, match="needs the classifier of the source"):
        headstart.rank(*digits(tmp_path), backbones=["resnet18:none"], by="leep")
    with pytest.raises(WeightsError, match="regnety_002"):
        headstart.rank(*digits(tmp_path), backbones=["regnety_002"])
    with pytest.raises(DataError, match="no classes that exclude each other"):
        headstart.rank(*digits(tmp_path), "task=regression", backbones=["resnet18"])
