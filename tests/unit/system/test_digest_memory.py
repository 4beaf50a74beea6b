"""Content digests and their memory."""

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from headstart.data.scan import content_digest
from headstart.errors import DataError
from headstart.system import digest_memory as content
from headstart.system.digest_memory import digest_file, file_digests


def write(path: Path, data: bytes, *, age_s: float = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data" / "a" / "1.png", b"one")
    write(tmp_path / "data" / "b" / "2.png", b"two")
    return tmp_path / "data"


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "memory" / "digests.sqlite"


def test_the_digest_follows_content_and_names_not_the_place(folder: Path, memory: Path, tmp_path: Path) -> None:
    first = content_digest(folder, memory_path=memory)
    moved = folder.rename(tmp_path / "elsewhere")
    assert content_digest(moved, memory_path=memory) == first
    write(moved / "notes.txt", b"no image")
    assert content_digest(moved, memory_path=memory) == first
    (moved / "a" / "1.png").rename(moved / "b" / "1.png")
    assert content_digest(moved, memory_path=memory) != first


def test_a_changed_pixel_is_seen_although_digests_are_remembered(folder: Path, memory: Path) -> None:
    first = content_digest(folder, memory_path=memory)
    write(folder / "a" / "1.png", b"eno", age_s=30)
    assert content_digest(folder, memory_path=memory) != first


def test_files_are_read_once(folder: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(folder.rglob("*.png"))
    first = file_digests(paths, memory)
    monkeypatch.setattr(content, "_digest_of", lambda path: pytest.fail(f"{path} was read again"))
    assert file_digests(paths, memory) == first


def soon_after(stamp: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all that follows, it is one second later."""
    monkeypatch.setattr(content, "time", SimpleNamespace(time_ns=lambda: stamp + 1_000_000_000))


def test_a_file_that_may_still_change_is_not_remembered(
    folder: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder / "a" / "1.png", b"one", age_s=0)
    stamp = path.stat().st_mtime_ns
    soon_after(stamp, monkeypatch)
    before = file_digests([path], memory)
    path.write_bytes(b"eno")
    os.utime(path, ns=(stamp, stamp))
    assert file_digests([path], memory) != before


def test_a_broken_memory_costs_nothing_but_time(folder: Path, tmp_path: Path) -> None:
    good = content_digest(folder, memory_path=tmp_path / "good.sqlite")
    damaged = write(tmp_path / "damaged.sqlite", b"this is no database" * 100)
    assert content_digest(folder, memory_path=damaged) == good
    assert content_digest(folder, memory_path=write(tmp_path / "file", b"") / "below" / "x.sqlite") == good


def test_chosen_files_and_single_files(folder: Path, memory: Path) -> None:
    every = content_digest(folder, ["b/2.png", "a/1.png"], memory)
    assert every == content_digest(folder, memory_path=memory)
    assert content_digest(folder, ["a/1.png"], memory) != every
    assert content_digest(folder / "a" / "1.png", memory_path=memory) == file_digests([folder / "a" / "1.png"])[0]
    with pytest.raises(DataError, match=r"gone\.bin cannot be read"):
        content_digest(folder / "gone.bin", memory_path=memory)


def test_many_files_are_looked_up_in_parts(tmp_path: Path, memory: Path) -> None:
    paths = [write(tmp_path / "many" / f"{number}.png", str(number).encode()) for number in range(1203)]
    first = file_digests(paths, memory)
    assert len(set(first)) == 1203
    assert file_digests(paths, memory) == first
    with contextlib.closing(sqlite3.connect(memory)) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (1203,)


def test_a_file_is_remembered_until_it_changes(tmp_path: Path):
    path, memory = tmp_path / "weights.bin", tmp_path / "memory.sqlite"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1_000_000_000))
    first = digest_file(path, memory_path=memory)
    # Same size and time: the memory answers, which shows that the file is not read again.
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1_000_000_000))
    assert digest_file(path, memory_path=memory) == first
    os.utime(path, ns=(1, 2_000_000_000))
    assert digest_file(path, memory_path=memory) != first


def test_a_file_that_just_changed_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, memory = tmp_path / "weights.bin", tmp_path / "memory.sqlite"
    path.write_bytes(b"one")
    stamp = path.stat().st_mtime_ns
    soon_after(stamp, monkeypatch)
    first = digest_file(path, memory_path=memory)
    path.write_bytes(b"two")
    os.utime(path, ns=(stamp, stamp))
    assert digest_file(path, memory_path=memory) != first


def test_a_damaged_or_unwritable_memory_is_no_error(tmp_path: Path):
    path, memory = tmp_path / "weights.bin", tmp_path / "memory.sqlite"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    expected = digest_file(path, memory_path=memory)
    memory.write_text("{" * 9000)
    assert digest_file(path, memory_path=memory) == expected
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    assert digest_file(path, memory_path=blocked / "memory.sqlite") == expected


def test_links_to_a_file_share_its_digest_and_follow_it(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch):
    one, two = write(tmp_path / "one", b"one"), write(tmp_path / "two", b"two")
    (tmp_path / "link").symlink_to(one)
    first = digest_file(one, memory)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        digest_file(tmp_path / "gone", memory)
    second = digest_file(two, memory)
    monkeypatch.setattr(content, "_read", lambda path: pytest.fail(f"{path} was read again"))
    assert digest_file(tmp_path / "link", memory) == first
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(two)
    assert digest_file(tmp_path / "link", memory) == second


def test_processes_that_learn_at_once_all_learn(tmp_path: Path, memory: Path):
    paths = [write(tmp_path / str(number), str(number).encode()) for number in range(6)]
    code = "import sys; from headstart.system.digest_memory import digest_file as f; print(f(*sys.argv[1:]))"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(memory)], stdout=subprocess.PIPE, text=True)
        for path in paths
    ]
    told = [process.communicate()[0].strip() for process in started]
    assert told == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    with contextlib.closing(sqlite3.connect(memory)) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (6,)
