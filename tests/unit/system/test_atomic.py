"""Files that appear complete or not at all."""

import csv
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from headstart.system.atomic import (
    atomic_path,
    atomic_write,
    copy_file,
    read_note,
    remove_leftovers,
    write_json,
    write_rows,
)


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("before")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write("half")
            raise KeyError

    def fill_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    for fail in (write_half, fill_half):
        with pytest.raises(KeyError):
            fail()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_new_files_have_the_rights_that_the_user_gives_files(tmp_path: Path, umask: int):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "text.json", {})
        with atomic_write(tmp_path / "bytes", "wb") as file:
            file.write(b"1")
        copy_file(tmp_path / "bytes", tmp_path / "copy")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_content_and_name_are_on_the_disk_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    flush, replace = os.fsync, Path.replace

    def watch_flush(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else f"{os.fstat(descriptor).st_size} bytes"
        done.append(f"flush {kind}")
        flush(descriptor)

    def watch_replace(self: Path, target: Path) -> Path:
        done.append(f"name {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watch_flush)
    monkeypatch.setattr(Path, "replace", watch_replace)
    for write in (lambda: write_json(tmp_path / "a", 1), lambda: copy_file(tmp_path / "a", tmp_path / "b")):
        done.clear()
        write()
        assert [step.split()[0] for step in done] == ["flush", "name", "flush"]
        assert (done[0], done[2]) == ("flush 2 bytes", "flush folder")


def test_leftovers_are_files_under_temporary_names(tmp_path: Path):
    for name in (".last.ckpt.0123abcd.tmp", ".hidden", "notes.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / ".folder.tmp").mkdir()
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nowhere")
    assert {path.name for path in tmp_path.iterdir()} == {".hidden", "notes.tmp", ".folder.tmp"}


def test_a_note_is_read_as_it_was_written_and_is_empty_where_it_is_none(tmp_path: Path):
    path = tmp_path / "note.json"
    assert read_note(path) == {}
    write_json(path, {"f": "why"})
    assert read_note(path) == {"f": "why"}
    for text in ("{torn", "[1]", "[" * 100_000):
        path.write_text(text)
        assert read_note(path) == {}


def test_text_that_is_no_utf8_is_written_legibly(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", [{"path": "caf\udce9.png"}])
    assert (tmp_path / "rows.csv").read_text("utf-8").splitlines() == ["path", r"caf\xe9.png"]


def test_names_in_a_table_move_no_terminal_and_start_no_spreadsheet(tmp_path: Path) -> None:
    names = ["=cmd|' /C calc'!A0", "@x", "+a", "\x1b[31mred", "-1", "a=b"]
    write_rows(tmp_path / "rows.csv", [{"class": name, "score": -0.5} for name in names])
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["'=cmd|' /C calc'!A0", "'@x", "'+a", r"\x1b[31mred", "-1", "a=b"]
    assert {row["score"] for row in rows} == {"-0.5"}


@pytest.mark.parametrize("umask", [0o002, 0o027, 0o077])
def test_a_library_that_keeps_a_file_to_its_owner_is_overruled(tmp_path: Path, umask: int):
    from safetensors.numpy import save_file

    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "a.safetensors") as temporary:
            save_file({"a": np.zeros(2)}, temporary)
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("name", ["x" * 255, "\u00e4" * 127, "\udce4" * 255])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str):
    with atomic_write(tmp_path / name) as file:
        file.write("1")
    assert (tmp_path / name).read_text() == "1"
    assert len(list(tmp_path.iterdir())) == 1
