"""``headstart cache`` as a user types it."""

from pathlib import Path

import numpy as np
import pytest

from headstart.commands.cache import main
from headstart.errors import CacheError
from headstart.store.building import ShardWriter
from headstart.store.store import Store

KEYS = ("aaaa1", "bbbb2")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "activations")
    for key in KEYS:
        with store.building(key) as build:
            with ShardWriter(build.folder) as writer:
                writer.append(np.zeros((3, 5), np.float32))
            about = {"data": "\x1b[31mdigits", "split": "val", "backbone": "resnet18", "after": "layer4"}
            build.finish(about, rows=3)
    return store


def call(store: Store, *arguments: str) -> int:
    return main(["--cache-dir", str(store.root.parent), *arguments])


def test_ls_tells_what_there_is(store: Store, capsys: pytest.CaptureFixture):
    assert call(store, "ls") == 0
    out = capsys.readouterr().out
    assert r"3 x 5 float32  \x1b[31mdigits  val  resnet18  after layer4" in out
    assert "2 entries" in out


def test_ls_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["--cache-dir", str(tmp_path), "ls"]) == 0
    assert "0 entries" in capsys.readouterr().out


def test_rm_takes_the_beginning_of_a_key(store: Store):
    assert call(store, "rm", "aaaa") == 0
    assert store.entries() == ["bbbb2"]


def test_rm_all(store: Store):
    assert call(store, "rm", "--all") == 0
    assert store.entries() == []


@pytest.mark.parametrize("arguments", [("rm",), ("rm", "cccc"), ("rm", "aaaa", "cccc")])
def test_rm_of_nothing_or_of_an_unknown_key_removes_nothing(store: Store, arguments: tuple[str, ...]):
    with pytest.raises(CacheError, match="give keys as `headstart cache ls` shows them, or --all"):
        call(store, *arguments)
    assert store.entries() == list(KEYS)


def test_rm_leaves_what_is_in_use(store: Store, capsys: pytest.CaptureFixture):
    entry = store.open("aaaa1")
    assert call(store, "rm", "--all") == 1
    assert store.entries() == ["aaaa1"]
    assert "in use" in capsys.readouterr().out
    entry.close()


def test_verify_finds_damage_and_removes_it_when_asked(store: Store, capsys: pytest.CaptureFixture):
    assert call(store, "verify") == 0
    file = next((store.root / "bbbb2").glob("*.bin"))
    file.write_bytes(b"\1" * file.stat().st_size)
    assert call(store, "verify") == 1
    assert "bbbb2 is damaged" in capsys.readouterr().out
    assert call(store, "verify", "--remove") == 1
    assert store.entries() == ["aaaa1"]
    assert call(store, "verify") == 0


def test_rm_of_an_empty_name_removes_nothing(store: Store):
    with pytest.raises(CacheError, match="no entry is called ''"):
        call(store, "rm", "")
    assert len(store.entries()) == 2
