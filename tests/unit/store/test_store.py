"""The store: whole entries or none, verified, shared, limited in size."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import CacheError
from headstart.store import building
from headstart.store.building import ShardWriter
from headstart.store.store import Store

ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)


def put(store: Store, key: str, rows: np.ndarray = ROWS, *, shard_bytes: int = 48, parts: int = 1) -> None:
    with store.building(key) as build:
        assert build is not None
        for part, share in enumerate(np.array_split(rows, parts)):
            with ShardWriter(build.folder, part=part, shard_bytes=shard_bytes) as writer:
                for start in range(0, len(share), 3):
                    writer.append(share[start : start + 3])
        build.finish({"note": "test"}, rows=len(rows))


@pytest.mark.parametrize("parts", [1, 3])
def test_rows_come_back_in_any_order_from_any_number_of_files(tmp_path: Path, parts: int):
    store = Store(tmp_path / "s")
    put(store, "a", parts=parts)
    assert len(list((tmp_path / "s" / "a").glob("*.bin"))) > 2
    entry = store.open("a")
    positions = np.array([9, 0, 3, 3, 7])
    np.testing.assert_array_equal(entry.rows(positions), ROWS[positions])
    assert len(entry) == 10
    assert entry.meta.about["note"] == "test"
    assert entry.meta.build_seconds > 0


def test_one_file_reads_alike(tmp_path: Path):
    store = Store(tmp_path)
    put(store, "a", shard_bytes=10**6)
    np.testing.assert_array_equal(store.open("a").rows(np.array([4, 2])), ROWS[[4, 2]])


def test_what_is_not_there_is_none(tmp_path: Path):
    assert Store(tmp_path / "absent").open("a") is None
    assert Store(tmp_path / "absent").entries() == []


def shorten(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 3)


def flip(path: Path) -> None:
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a failing disk would, without a trace in the times


@pytest.mark.parametrize("damage", [shorten, flip, Path.unlink], ids=["torn", "flipped", "lost"])
@pytest.mark.parametrize("file", ["meta.json", "00000-00001.bin"])
def test_damage_is_found_on_opening_and_the_entry_is_made_again(tmp_path: Path, damage, file: str, caplog):
    store = Store(tmp_path)
    put(store, "a")
    damage(tmp_path / "a" / file)
    assert store.verify("a")
    with caplog.at_level(logging.WARNING, logger="headstart.store.store"):
        assert store.open("a") is None
    assert "damaged" in caplog.text
    put(store, "a")
    np.testing.assert_array_equal(store.open("a").rows(np.arange(10)), ROWS)


def test_an_entry_under_another_key_is_not_believed(tmp_path: Path):
    store = Store(tmp_path)
    put(store, "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert store.open("b") is None


def test_a_copied_entry_is_read_in_full_and_good(tmp_path: Path):
    store = Store(tmp_path)
    put(store, "a")
    for path in (tmp_path / "a").glob("*.bin"):
        os.utime(path, (1, 1))
    assert store.open("a") is not None


def test_an_error_while_building_leaves_nothing(tmp_path: Path):
    store, bad = Store(tmp_path), np.array(["x"])
    with pytest.raises(ValueError, match="x"), store.building("a") as build, ShardWriter(build.folder) as writer:
        writer.append(bad.astype(float))
    assert store.entries() == []
    assert not list(tmp_path.glob(".*.tmp"))


def test_missing_rows_are_no_entry(tmp_path: Path):
    store = Store(tmp_path)
    with store.building("a") as build:
        with ShardWriter(build.folder) as writer:
            writer.append(ROWS)
        with pytest.raises(CacheError, match="instead of 11"):
            build.finish({}, rows=11)
    assert store.entries() == []


def test_rows_of_another_shape_are_refused(tmp_path: Path):
    with ShardWriter(tmp_path) as writer:
        writer.append(ROWS)
        with pytest.raises(CacheError, match="change from batch to batch"):
            writer.append(ROWS[:, :2])


def test_a_full_disk_says_so_and_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path)
    put(store, "old")

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            self.file.close()

    def full_open(self, mode="r", *args, **kwargs):
        file = original(self, mode, *args, **kwargs)
        return Full(file) if self.suffix == ".bin" and "w" in mode else file

    original = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full_open)
        with pytest.raises(CacheError, match=r"no space left .* cache rm"):
            put(store, "new")
    assert store.entries() == ["old"]
    assert not list(tmp_path.glob(".*.tmp"))
    np.testing.assert_array_equal(store.open("old").rows(np.arange(10)), ROWS)


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"paths\.cache_dir"), Store(tmp_path / "file" / "s").building("a"):
        pass


BUILD = """
    import sys, time, numpy as np
    from headstart.store.building import ShardWriter
    from headstart.store.store import Store
    store = Store(sys.argv[1])
    with store.building("a") as build:
        if build is None:
            print("found", flush=True)
        else:
            writer = ShardWriter(build.folder, shard_bytes=8)
            writer.append(np.zeros((5, 4), np.float32))
            print("building", flush=True)
            time.sleep(float(sys.argv[2]))
            writer.append(np.ones((5, 4), np.float32))
            writer.finish()
            build.finish({}, rows=10)
            print("built", flush=True)
"""


def builder(root: Path, seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(BUILD), str(root), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killing_a_build_leaves_no_entry_and_the_next_one_cleans_up(tmp_path: Path):
    store = Store(tmp_path)
    with builder(tmp_path, 60) as process:
        assert process.stdout.readline() == "building\n"
        assert store.clean() == 0  # in use
        process.send_signal(signal.SIGKILL)
    assert store.open("a") is None
    assert store.entries() == []
    assert len(list(tmp_path.glob(".a.*.tmp"))) == 1
    put(store, "a")
    assert not list(tmp_path.glob(".*.tmp"))
    np.testing.assert_array_equal(store.open("a").rows(np.arange(10)), ROWS)


def test_two_processes_make_one_entry(tmp_path: Path):
    with builder(tmp_path, 1.0) as first:
        assert first.stdout.readline() == "building\n"
        with builder(tmp_path, 1.0) as second:
            assert first.stdout.readline() == "built\n"
            assert second.stdout.readline() == "found\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert Store(tmp_path).verify("a") is None


def age(store: Store, key: str, seconds: float) -> None:
    past = time.time() - seconds
    os.utime(store.root / key / "used", (past, past))


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path):
    store = Store(tmp_path)
    for number, key in enumerate("abc"):
        put(store, key)
        age(store, key, 1000 - number)
    store.open("a").close()
    store.max_bytes = 2 * store.size_bytes("a") + 1
    assert store.evict() == ["b"]
    assert store.entries() == ["a", "c"]


def test_nothing_in_use_or_to_be_kept_is_evicted(tmp_path: Path):
    store = Store(tmp_path, max_bytes=1)
    for key in "abc":
        put(store, key)
    entry = store.open("a")
    assert Store(tmp_path, max_bytes=1).evict(keep=["b"]) == ["c"]
    assert not store.remove("a")
    entry.close()
    assert store.remove("a")
    assert store.entries() == ["b"]


def test_an_entry_stays_readable_when_it_is_removed_underneath(tmp_path: Path):
    store = Store(tmp_path)
    put(store, "a")
    entry = store.open("a")
    entry.close()
    store.remove("a")
    np.testing.assert_array_equal(entry.rows(np.arange(10)), ROWS)


def test_reading_leaves_the_files_alone(tmp_path: Path):
    store = Store(tmp_path)
    put(store, "a", shard_bytes=10**6)
    store.open("a").shards[0][:] = 0
    assert store.verify("a") is None


def test_the_meta_file_is_plain_json(tmp_path: Path):
    store = Store(tmp_path)
    put(store, "a")
    values = json.loads((tmp_path / "a" / "meta.json").read_text())
    assert (values["key"], values["dtype"], values["shape"]) == ("a", "float32", [4])


def test_large_entries_with_unchanged_time_stamps_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path)
    put(store, "a")
    flip(tmp_path / "a" / "00000-00000.bin")
    monkeypatch.setattr("headstart.store.store.VERIFIED_BYTES", 1)
    assert store.open("a") is not None
    os.utime(tmp_path / "a" / "00000-00000.bin", (1, 1))
    assert store.open("a") is None


def test_shards_are_bounded():
    assert building.SHARD_BYTES <= 2**30
