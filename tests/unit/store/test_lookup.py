"""Rows are found by the content of their images, whatever split they were made for."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.store.building import ShardWriter
from headstart.store.entry import IMAGES
from headstart.store.extract import Kind
from headstart.store.lookup import StoredRows
from headstart.store.store import Store


def put(root: Path, key: str, values: torch.Tensor, names: list[str], *, recipe: str = "ours") -> None:
    kind = Kind.of(values, half=False)
    with Store(root).building(key) as build:
        assert build is not None
        with ShardWriter(build.folder, shard_bytes=16) as writer:
            writer.append(kind.to_rows(values[:2]))
            writer.append(kind.to_rows(values[2:]))
        build.finish({"recipe": recipe, "kind": kind.as_dict()}, rows=len(values), images=names)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path in paths:
        path.write_text(path.name)
    return [str(path) for path in paths]


def digests(files: list[str]) -> list[str]:
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]


def test_rows_of_several_entries_are_found_by_content(tmp_path: Path, files: list[str]):
    root, values = tmp_path / "s", torch.arange(18, dtype=torch.bfloat16).reshape(6, 3)
    put(root, "a", values[:3], digests(files[:3]))
    put(root, "b", values[3:5], digests(files[3:5]))
    put(root, "c", values + 100, digests(files), recipe="another network")
    (tmp_path / "copy.png").write_text(Path(files[1]).read_text())
    with StoredRows(root, ["ours", "too"]) as stored:
        assert len(stored) == 5
        for number, file in enumerate(files[:5]):
            assert torch.equal(stored.row(file), values[number])
        assert torch.equal(stored.row(str(tmp_path / "copy.png")), values[1])
        assert stored.row(files[5]) is None
        Path(files[0]).write_text("another image")
        assert stored.row(files[0]) is None
        assert stored.row(str(tmp_path)) is stored.row("gone.png") is None
        assert not Store(root).remove("a")
    assert Store(root).remove("a")


def test_what_is_no_digest_is_never_found(tmp_path: Path, files: list[str]):
    put(tmp_path / "s", "a", torch.ones(2, 3), ["digits/0001", digests(files)[0]])
    with StoredRows(tmp_path / "s", ["ours"]) as stored:
        assert stored.row(files[0]) is not None
        assert stored.row(files[1]) is None


def test_names_that_were_altered_or_never_noted_lead_nowhere(tmp_path: Path, files: list[str], caplog):
    put(tmp_path / "s", "a", torch.ones(2, 3), digests(files[:2]))
    put(tmp_path / "s", "b", torch.ones(2, 3), [])
    names = np.fromfile(tmp_path / "s" / "a" / IMAGES, dtype="S32")
    names[::-1].tofile(tmp_path / "s" / "a" / IMAGES)
    with caplog.at_level(logging.WARNING), StoredRows(tmp_path / "s", ["ours"]) as stored:
        assert len(stored) == 0
        assert stored.row(files[0]) is None
    assert "a/images was altered" in caplog.text
