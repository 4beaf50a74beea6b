"""Listing image folders, and clear errors where they are laid out otherwise."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.data.scan import IMG_EXTENSIONS, folders_sort_by_number, list_images, scan_folder
from headstart.errors import DataError


def lay_out(root: Path, *names: str) -> Path:
    root.mkdir(exist_ok=True)
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return root


def test_extensions_are_those_of_torchvision() -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS as THEIRS

    assert IMG_EXTENSIONS == THEIRS


def test_split_folders(tmp_path: Path) -> None:
    root = lay_out(
        tmp_path / "r", "train/b/2.JPG", "train/a/1.png", "train/a/sub/deep/3.webp", "val/a/4.png", "val/b/5.tiff"
    )
    scan = scan_folder(root)
    assert scan.classes == ("a", "b")
    assert scan.files["train"] == [("train/a/1.png", 0), ("train/a/sub/deep/3.webp", 0), ("train/b/2.JPG", 1)]
    assert scan.files["val"] == [("val/a/4.png", 0), ("val/b/5.tiff", 1)]
    assert "test" not in scan.files


def test_class_folders_without_splits(tmp_path: Path) -> None:
    scan = scan_folder(lay_out(tmp_path / "r", "b/1.png", "a/2.png"))
    assert scan.files == {"all": [("a/2.png", 0), ("b/1.png", 1)]}


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_other_names_of_the_validation_folder(tmp_path: Path, name: str) -> None:
    root = lay_out(tmp_path / "r", "train/a/1.png", "train/b/1.png", f"{name}/a/1.png", f"{name}/b/1.png")
    assert scan_folder(root).files["val"] == [(f"{name}/a/1.png", 0), (f"{name}/b/1.png", 1)]


def test_classes_are_in_the_order_of_the_numbers_in_their_names(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "r", *(f"{name}/1.png" for name in ("10", "9", "b2", "b10", "09")))
    assert scan_folder(root).classes == ("09", "9", "10", "b2", "b10")
    assert folders_sort_by_number(root)
    below = lay_out(tmp_path / "s", *(f"{split}/{name}/1.png" for split in ("train", "val") for name in ("2", "10")))
    assert folders_sort_by_number(below)
    assert not folders_sort_by_number(lay_out(tmp_path / "t", "1/10.png", "1/9.png", "2/1.png"))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert scan_folder(lay_out(tmp_path / "r", "train/1.png", "plane/2.png")).classes == ("plane", "train")


def test_other_files_are_ignored_and_counted(tmp_path: Path) -> None:
    root = lay_out(
        tmp_path / "r",
        "a/1.png", "b/1.png", "a/no.gif", "b/no.GIF", ".DS_Store", "a/.DS_Store", "a/._1.png", "notes.txt", "b/README",
        ".git/1.png", "__MACOSX/a/1.png", "a/.ipynb_checkpoints/1.png",
    )  # fmt: skip
    scan = scan_folder(root)
    assert scan.files["all"] == [("a/1.png", 0), ("b/1.png", 1)]
    assert scan.ignored == {".gif": 2, ".DS_Store": 2, ".*": 1, ".txt": 1, "(none)": 1}


def test_extensions_can_be_chosen(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "r", "a/1.gif", "b/1.gif", "b/2.png")
    assert scan_folder(root, ["GIF"]).files["all"] == [("a/1.gif", 0), ("b/1.gif", 1)]
    with pytest.raises(DataError, match="extensions is empty"):
        scan_folder(root, [])


def test_other_folders_beside_the_splits_are_named(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "r", "train/a/1.png", "train/b/1.png", "masks/1.png")
    assert scan_folder(root).other_folders == ("masks",)


def test_links_that_go_in_circles_end(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "r", "a/1.png", "b/1.png")
    (root / "a" / "again").symlink_to(root / "a")
    assert scan_folder(root).files["all"] == [("a/1.png", 0), ("b/1.png", 1)]


def test_list_images_lists_all_in_order(tmp_path: Path) -> None:
    assert list_images(lay_out(tmp_path / "r", "z.png", "b/1.jpg", "b/.hidden.png", "c.txt")) == ["b/1.jpg", "z.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "has no class folders"),
        (("1.png", "2.png"), "holds 2 images but no class folders"),
        (("train/",), "train has no class folders"),
        (("a/1.png", "b/"), r"class folder .*b holds no images"),
        (("a/1.gif", "b/2.gif"), r"holds no images: found 2 x \.gif, looked for \.jpg"),
        (("a/1.png",), "one class only"),
        (("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/bb/1.png"), r"only in train: b; only in val: bb"),
        (("train/a/1.png", "train/b/1.png", "test/1.png"), r"test holds 1 images but no class folders"),
        (("val/a/1.png", "val/b/1.png"), "has val but no train folder"),
        (("train/a/1.png", "val/a/1.png", "valid/a/1.png"), "several folders for the val split"),
    ],
)
def test_unusable_folders_are_explained(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        scan_folder(lay_out(tmp_path / "r", *names))


def test_a_missing_root_says_what_was_given_and_where_it_ends(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"root={tmp_path}/no/where does not exist; the nearest .* {tmp_path}\. Give"):
        scan_folder(tmp_path / "no" / "where")
    file = lay_out(tmp_path / "r", "a.zip") / "a.zip"
    with pytest.raises(DataError, match="is a file, not a folder"):
        scan_folder(file)
    with pytest.raises(DataError, match="not set"):
        scan_folder("???")


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [("Training", "Testing", "test"), ("TRAIN", "Val", "val"), ("train", "dev", "val"), ("Train", "Validation", "val")],
)
def test_splits_are_known_by_their_usual_names_in_any_case(tmp_path: Path, train: str, other: str, split: str) -> None:
    names = [f"{folder}/{label}/1.png" for folder in (train, other) for label in ("a", "b")]
    scan = scan_folder(lay_out(tmp_path / "r", *names))
    assert scan.classes == ("a", "b")
    assert scan.files == {
        "train": [(f"{train}/a/1.png", 0), (f"{train}/b/1.png", 1)],
        split: [(f"{other}/a/1.png", 0), (f"{other}/b/1.png", 1)],
    }


@pytest.mark.parametrize("names", [("seg_train", "seg_test"), ("fold1", "fold2"), ("train2017", "val2017")])
def test_folders_named_like_splits_are_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    root = lay_out(tmp_path / "r", *(f"{name}/{label}/1.png" for name in names for label in ("a", "b")))
    with pytest.raises(DataError, match="named like splits, not like classes; name them train, val and test"):
        scan_folder(root)


def test_classes_may_hold_the_words_for_splits(tmp_path: Path) -> None:
    scan = scan_folder(lay_out(tmp_path / "r", "test_tube/1.png", "train_station/1.png"))
    assert scan.classes == ("test_tube", "train_station")


def test_what_systems_leave_behind_is_no_class(tmp_path: Path) -> None:
    root = lay_out(
        tmp_path / "r", "a/1.png", "b/1.png", "@eaDir/1.png", "a/@eaDir/2.png", "#recycle/3.png", "$RECYCLE.BIN/4.png"
    )
    assert scan_folder(root).files == {"all": [("a/1.png", 0), ("b/1.png", 1)]}


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images would be missing without a word."""
    root = lay_out(tmp_path / "r", "a/1.png", "a/sub/2.png", "b/1.png")
    scandir = os.scandir

    def refusing(path: str | Path) -> Iterator[os.DirEntry]:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"a/sub cannot be read \(Permission denied\); make it readable"):
        scan_folder(root)
