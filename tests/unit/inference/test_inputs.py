import io
import sys
import tarfile
from pathlib import Path

import pytest

from headstart.errors import DataError
from headstart.inference.inputs import find_images


def names(*inputs: object, **choices: str) -> list[str]:
    return [Path(path).name for path in find_images(inputs, **choices)]


def test_a_path_is_given_once_and_a_named_file_is_always_tried(folder: Path):
    found = names(folder / "a.png", folder, folder / "notes.txt")
    assert found == ["a.png", "b.jpg", "broken.jpg", "c.png", "notes.txt"]


def test_a_folder_is_read_only_as_far_as_its_images_are_asked_for(folder: Path):
    (folder / "later").mkdir()
    found = find_images([folder])
    assert next(found).endswith("a.png")
    (folder / "later" / "d.png").write_bytes(b"x")
    assert [Path(path).name for path in found] == ["b.jpg", "broken.jpg", "d.png", "c.png"]


def test_patterns_are_files_in_order(folder: Path):
    assert names(f"{folder}/**/*.png") == ["a.png", "c.png"]
    (folder / "odd[1].png").write_bytes(b"x")
    assert names(folder / "odd[1].png") == ["odd[1].png"]
    with pytest.raises(DataError, match=r"\*\.gif holds no image files"):
        find_images([f"{folder}/*.gif"])


def test_images_in_tar_files_are_paths_into_them(folder: Path):
    (folder / "shards").mkdir()
    for shard in ("0", "1"):
        with tarfile.open(folder / "shards" / f"{shard}.tar", "w") as file:
            file.add(folder / "a.png", f"x/{shard}.png")
            file.add(folder / "notes.txt", f"x/{shard}.txt")
    shards, inside = folder / "shards", [f"{folder}/shards/{n}.tar/x/{n}.png" for n in (0, 1)]
    assert list(find_images([shards])) == inside
    assert list(find_images([f"{shards}/*.tar"])) == inside
    assert list(find_images([shards / "1.tar", shards])) == inside[::-1]
    assert list(find_images([inside[0]])) == inside[:1]
    assert names(folder) == ["a.png", "b.jpg", "broken.jpg", "c.png", "0.png", "1.png"]
    (folder / "table.csv").write_text("path\nshards/1.tar/x/1.png\n")
    assert list(find_images([folder / "table.csv"])) == inside[1:]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_names_images_relative_to_its_folder(folder: Path, mark: str):
    table = folder / ("t.tsv" if mark == "\t" else "t.csv")
    rows = [["id", "photo"], ["1", "more/c.png"], ["2", ' "a.png"'], ["3", "more/c.png"]]
    table.write_text("\ufeff" + "\n".join(mark.join(row) for row in rows), encoding="utf-8")
    found = list(find_images([table], column="photo"))
    assert found == [(folder / "more" / "c.png").as_posix(), (folder / "a.png").as_posix()]
    with pytest.raises(DataError, match=r"no column path, only id, photo; .*--column"):
        list(find_images([table]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("declared", ["", "sep=;\r\n"])
def test_a_table_is_read_as_spreadsheets_write_it(folder: Path, encoding: str, declared: str):
    (folder / "\u00e4,1.png").write_bytes(b"x")
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (folder / "t.csv").write_text(f"{mark}{declared}n;path\r\n1;\u00e4,1.png\r\n2;a.png\r\n3;\r\n", encoding=encoding)
    found = find_images([folder / "t.csv"])
    assert [Path(next(found)).name, Path(next(found)).name] == ["\u00e4,1.png", "a.png"]
    with pytest.raises(DataError, match=f"line {5 if declared else 4}: path is empty"):
        next(found)


def test_a_line_without_a_path_is_named(folder: Path):
    table = folder / "t.csv"
    table.write_text("path,x\na.png,1\n,2\n")
    with pytest.raises(DataError, match="line 3: path is empty"):
        list(find_images([table]))


def test_standard_input_has_a_path_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch):
    lines = f"{folder}/a.png\r\n\n{folder}/b \xfc.png\n".encode("latin-1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="ascii"))
    assert names("-") == ["a.png", "b \udcfc.png"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(DataError, match="standard input names no image files"):
        find_images(["-"])


def test_what_does_not_exist_is_named(folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        find_images([folder / "gone.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image files"):
        find_images([tmp_path / "empty"])
