"""Paths that lead into tar files name what is inside, and are read in place."""

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.images import read_image
from headstart.data.sources import tar_files
from headstart.data.sources.tar_files import images_in, leads_into, read_within, stat_of
from headstart.errors import DataError


def write(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    members = {"./b/1.png": png(1), "b/1.cls": b"7", "a.JPG": png(2), "b/._1.png": b"of a system", "c.png": b"damaged"}
    return write(tmp_path / "0.tar", members)


def test_images_are_listed_in_order_and_read_by_their_paths(shard: Path):
    paths = list(images_in(shard))
    assert paths == [f"{shard}/b/1.png", f"{shard}/a.JPG", f"{shard}/c.png"]
    assert [np.asarray(read_image(path))[0, 0, 0] for path in paths[:2]] == [1, 2]
    with pytest.raises(DataError, match=r"0\.tar/c\.png cannot be read as an image"):
        read_image(paths[2])
    assert read_within(f"{shard}/b/1.cls") == b"7"
    assert leads_into(Path(paths[0]))
    assert not leads_into(shard)


@pytest.mark.parametrize(
    ("path", "words"), [("0.tar/x.png", "0.tar has no x.png"), ("1.tar/x.png", "cannot be read as an image")]
)
def test_what_is_not_there_is_told(shard: Path, path: str, words: str):
    with pytest.raises(DataError, match=words):
        read_image(shard.parent / path)
    with pytest.raises(OSError, match=r"\w"):
        stat_of(shard.parent / "1.tar" / "x.png")


def test_a_tar_file_that_was_written_anew_is_listed_anew(shard: Path):
    assert np.asarray(read_image(shard / "a.JPG"))[0, 0, 0] == 2
    before = stat_of(shard / "a.JPG").st_mtime_ns
    write(shard, {"more.png": png(5), "a.JPG": png(9)})
    assert np.asarray(read_image(shard / "a.JPG"))[0, 0, 0] == 9
    assert stat_of(shard / "a.JPG").st_mtime_ns > before


def test_several_threads_list_a_file_once(shard: Path, monkeypatch: pytest.MonkeyPatch):
    listed = []
    monkeypatch.setattr(tar_files, "members", lambda tar, true=tar_files.members: listed.append(tar) or true(tar))
    tar_files._places.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(read_image, [f"{shard}/a.JPG"] * 32))) == 32
    assert listed == [shard]


def test_a_compressed_one_is_told(tmp_path: Path):
    packed = write(tmp_path / "packed.tar", {"a.png": png(0)}, "w:gz")
    with pytest.raises(DataError, match="is damaged, or no plain tar file"):
        list(images_in(packed))
