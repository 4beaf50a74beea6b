"""``headstart inspect``: what is wrong with a data set is told before anything is trained on it."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from headstart.commands.cli import main
from headstart.data import Folder
from headstart.errors import RunError
from headstart.inspection.page import inspect, inspect_runs
from headstart.runs.directory import find_runs

CHOICES = ["backbone=small_cnn", "backbone.weights=none", "datamodule.image_size=32"]


@pytest.fixture
def dirty(image_folder: Callable[..., Path]) -> Path:
    """Copies of two training images in val, one mirrored and with another label; a damaged file, a turned one."""
    root = image_folder(splits={"train": 12, "val": 4})
    rng = np.random.default_rng(0)
    for path in sorted(root.rglob("*.png")):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((48, 40), Image.Resampling.BICUBIC).save(path)
    first, second = sorted((root / "train" / "ant").iterdir())[:2]
    shutil.copy(first, root / "val" / "ant" / "copy.png")
    ImageOps.mirror(Image.open(second)).save(root / "val" / "bee" / "mirrored.webp", quality=90)
    (root / "train" / "bee" / "damaged.jpg").write_bytes(b"nothing")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(root / "train" / "bee" / "x.jpg", exif=exif)
    return root


def test_what_is_wrong_is_found_and_shown(dirty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = inspect(["datamodule=folder", f"datamodule.root={dirty}", *CHOICES], tmp_path / "page")
    exact, near = found.pairs
    assert (exact.exact, exact.across, exact.same_label) == (True, True, True)
    assert (near.exact, near.across, near.same_label, near.mirrored) == (False, True, False, True)
    assert found.sizes == {"train": 25, "val": 10}
    assert found.counts["val"] == [5, 5]
    assert found.turned() == 1
    assert [Path(entry["path"]).name for entry in found.damaged] == ["damaged.jpg"]
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "The same image in two splits, 1 times",
        "Pairs that look the same in two splits: 1",
        "different labels, 1 times",
        "Unreadable files, which are left out: 1",
        "Few images of ant (5 in val)",
        "1 are turned upright",
    ):
        assert words in out, words
    page = (tmp_path / "page" / "data.html").read_text()
    assert page.count("<img") >= 4 * 4 + 2 * 2  # four training images, each as four pictures, and two pairs
    for words in ("val/ant/copy.png", "the same file", "mirrored", "damaged.jpg", "32 x 32 pixels"):
        assert words in page, words
    assert (tmp_path / "page" / "data" / "classes.csv").exists()


def test_a_bare_folder_is_enough(dirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    odd = tmp_path / "it's \\ odd, (yes)"
    shutil.copytree(dirty, odd)
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(odd), *CHOICES]) == 0
    assert len(list((tmp_path / "outputs" / "inspection").glob("*/data.html"))) == 1
    assert main(["inspect", str(odd), "--out", "page", *CHOICES, "++seed=1"]) == 0
    assert (tmp_path / "page" / "data.html").exists()
    assert not list((tmp_path / "outputs").glob("runs"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there is no such folder"),
        (["datamodule=nothing"], "datamodule=nothing is unknown"),
        (["~nothing"], "~nothing: there is no nothing to remove"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", *arguments]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["--out"], ["--out", "page"], ["PATH", "--trust"]])
def test_what_is_missing_is_told_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", *arguments])
    assert "usage: headstart inspect" in capsys.readouterr().err


def test_numbers_have_no_classes_to_count(image_folder: Callable[..., Path], tmp_path: Path):
    root = image_folder(splits={"": 6})
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    (root / "table.csv").write_text("\n".join(["path,age", *(f"{name},{n}" for n, name in enumerate(names))]))
    choices = ["datamodule=csv", f"datamodule.manifest={root / 'table.csv'}", "task=regression", *CHOICES]
    found = inspect(choices, tmp_path / "page")
    assert found.counts == {}
    assert "images" in (tmp_path / "page" / "data.html").read_text()


@pytest.fixture
def mislabelled(image_folder: Callable[..., Path]) -> tuple[Path, set[str]]:
    """Two classes of 20 images, four of which are in the other's folder."""
    root = image_folder(splits={"": 20})
    for number in range(2):
        for one, other in (("ant", "bee"), ("bee", "ant")):
            (root / one / f"{number:03d}.png").rename(root / other / f"wrong{number}.png")
    return root, {f"{name}/wrong{number}.png" for name in ("ant", "bee") for number in range(2)}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["freeze", "full"])
def test_a_run_names_the_training_images_that_are_labelled_wrongly(
    mislabelled: tuple[Path, set[str]],
    strategy: str,
    train: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    root, wrong = mislabelled
    run = train(f"strategy={strategy}", "datamodule.flip=false", root=root).run.path
    assert main(["inspect", str(run), "--out", str(tmp_path / "page")]) == 0
    assert "labels surprise models that have not seen them" in " ".join(capsys.readouterr().out.split())
    with (tmp_path / "page" / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    training = {name for name in wrong if name in _training_images(root)}
    assert training
    assert {row["image"] for row in rows[: len(training)]} == training
    assert all(row["label"] != row["predicted"] for row in rows)
    page = (tmp_path / "page" / "data.html").read_text()
    assert "Labels to look at" in page
    assert all(name in page for name in training)


def _training_images(root: Path) -> set[str]:
    data = Folder(root=root, batch_size=1, seed=0, val_fraction=0.2)
    return set(data.records("train").ids)


@pytest.mark.slow
def test_the_runs_of_a_cross_validation_name_all_images_that_are_labelled_wrongly(
    mislabelled: tuple[Path, set[str]], train: Callable[..., Any], tmp_path: Path
):
    root, wrong = mislabelled
    for fold in range(3):
        train("strategy=freeze", "head=logreg", "datamodule.augment=none", "datamodule.folds=3",
              f"datamodule.fold={fold}", root=root)  # fmt: skip
    _, named = inspect_runs(find_runs(tmp_path / "outputs"), tmp_path / "page")
    assert {one.image for one in named[: len(wrong)]} == wrong
    (root / named[0].image).unlink()  # as somebody who cleans up after the page may do
    _, again = inspect_runs(find_runs(tmp_path / "outputs"), tmp_path / "page")
    assert named[0].image in {one.image for one in again}
    assert "no longer there" in next((tmp_path / "page").glob("*.html")).read_text()
    with pytest.raises(RunError, match="lack fold 0, 2 of 3"):
        inspect_runs([path for path in find_runs(tmp_path / "outputs") if "fold1" in path.name], tmp_path / "other")


def test_a_run_beside_something_else_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    assert main(["inspect", str(tmp_path / "run"), "datamodule.image_size=32"]) == 1
    assert "after runs there can be further runs only" in capsys.readouterr().err
