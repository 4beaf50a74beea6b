"""``headstart inspect``: what is wrong with a data set is told before anything is trained on it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from headstart.commands.cli import main
from headstart.inspection.page import inspect

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
    assert not list((tmp_path / "outputs").glob("runs"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there is no such folder"),
        (["datamodule=nothing"], "datamodule=nothing is unknown"),
        (["--out"], "--out needs a folder"),
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


def test_numbers_have_no_classes_to_count(image_folder: Callable[..., Path], tmp_path: Path):
    root = image_folder(splits={"": 6})
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    (root / "table.csv").write_text("\n".join(["path,age", *(f"{name},{n}" for n, name in enumerate(names))]))
    choices = ["datamodule=csv", f"datamodule.manifest={root / 'table.csv'}", "task=regression", *CHOICES]
    found = inspect(choices, tmp_path / "page")
    assert found.counts == {}
    assert "images" in (tmp_path / "page" / "data.html").read_text()
