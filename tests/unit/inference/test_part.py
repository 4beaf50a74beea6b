"""A file of rows that is gone on with is the one that would have been written at once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.errors import RunError
from headstart.inference import part as part_module
from headstart.inference.part import PartFile


class StoppedError(Exception):
    pass


@pytest.fixture(autouse=True)
def _always_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "SECONDS", 0.0)


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number:02d}.png" for number in range(20)]
    for path in paths:
        path.write_text(path.name)
    return list(map(str, paths))


def write(output: Path, images: list[str], *, run: str = "a", stop_after: int | None = None) -> list[str]:
    """Rows of the images' contents, settled after every second one; returns the images that were worked on."""
    worked: list[str] = []
    with PartFile(output, {"run": run}, "header\n") as part:
        for image in part.begin(iter(images)):
            if len(worked) == stop_after:
                raise StoppedError
            worked.append(image)
            part.add(f"{Path(image).name} {Path(image).read_text()}\n", "x")
            if len(worked) % 2 == 0:
                part.settle()
        part.settle(at_once=True)
        assert part.labels == {"x": len(images)}
        part.finish()
    return worked


def lines(images: list[str]) -> str:
    return "header\n" + "".join(f"{Path(image).name} {Path(image).read_text()}\n" for image in images)


@pytest.fixture
def stopped(tmp_path: Path, images: list[str]) -> Iterator[Path]:
    """An output of which 8 images are settled, and a ninth is written."""
    output = tmp_path / "out.csv"
    with pytest.raises(StoppedError):
        write(output, images, stop_after=9)
    yield output
    assert not list(tmp_path.glob("out.csv.*"))


def test_only_what_is_left_is_worked_on(stopped: Path, images: list[str]):
    assert not stopped.exists()
    assert write(stopped, images) == images[8:]
    assert stopped.read_text() == lines(images)


def test_from_the_first_image_that_changed_on_all_is_done_again(stopped: Path, images: list[str]):
    Path(images[5]).write_text("other")
    assert write(stopped, images) == images[4:]
    assert stopped.read_text() == lines(images)


def test_an_image_that_came_or_went_is_noticed(stopped: Path, images: list[str]):
    del images[2]
    assert write(stopped, images) == images[2:]
    assert stopped.read_text() == lines(images)


def test_images_in_a_tar_file_are_done_again_when_it_changed(tmp_path: Path, images: list[str]):
    tar, output = tmp_path / "0.tar", tmp_path / "out.csv"
    inside = [f"{tar}/{number}.png" for number in range(4)]

    def worked(stop: bool) -> int:
        with PartFile(output, {}, "header\n") as part:
            left = list(part.begin(iter(inside)))
            for image in left:
                part.add(f"{image}\n")
            part.settle(at_once=True)
            if not stop:
                part.finish()
        return len(left)

    tar.write_bytes(b"first")
    assert worked(stop=True) == 4
    assert worked(stop=True) == 0
    tar.write_bytes(b"second")
    assert worked(stop=False) == 4


def test_fewer_images_than_were_done_end_where_they_end(stopped: Path, images: list[str]):
    assert write(stopped, images[:5]) == images[4:5]
    assert stopped.read_text() == lines(images[:5])


def test_rows_of_another_run_are_not_taken(stopped: Path, images: list[str]):
    assert write(stopped, images, run="b") == images
    assert stopped.read_text() == lines(images)


@pytest.mark.parametrize("damage", ["row", "short", "journal", "count", "no journal", "no rows"])
def test_damaged_rows_are_written_again(stopped: Path, images: list[str], damage: str):
    rows, journal = stopped.with_name("out.csv.part"), stopped.with_name("out.csv.part.journal")
    if damage == "row":
        rows.write_bytes(rows.read_bytes().replace(b"04.png 04", b"04.png 14"))
    elif damage == "short":
        os.truncate(rows, rows.read_bytes().index(b"04.png"))
    elif damage == "journal":
        kept = journal.read_text().splitlines()
        journal.write_text("\n".join([*kept[:3], kept[3][:20]]))
    elif damage == "count":
        kept = journal.read_text().splitlines()
        journal.write_text("\n".join([*kept[:3], kept[3].replace('"rows": 6', '"rows": 7')]))
    else:
        (journal if damage == "no journal" else rows).unlink()
    assert write(stopped, images) == (images if damage.startswith("no") else images[4:])
    assert stopped.read_text() == lines(images)


def test_one_process_writes_at_a_time(tmp_path: Path):
    output = tmp_path / "out.csv"
    with PartFile(output, {}, ""), pytest.raises(RunError, match="is being written by process"):
        PartFile(output, {}, "").__enter__()
    assert list(tmp_path.iterdir()) == []
