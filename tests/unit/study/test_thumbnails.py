"""Pictures in the report: of files and of computed data, small, inside the page, and no report fails without them."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.runs.reader import RunRecord
from headstart.study.report import write_report
from headstart.study.thumbnails import LONGEST_SIDE, MOST_BYTES, thumbnails

DIGITS = {"_target_": "headstart.data.Digits", "num_workers": 0}


def run_over(folder, datamodule):
    folder.mkdir(exist_ok=True)
    import yaml

    (folder / "config.yaml").write_text(yaml.safe_dump({"datamodule": datamodule}))
    return RunRecord(folder, "done")


def opened(thumbnail):
    head, data = thumbnail.uri.split(",", 1)
    return head, Image.open(io.BytesIO(base64.b64decode(data)))


def test_files_are_shown_small_whatever_they_are(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 500, 3), dtype=np.uint8)
    (tmp_path / "cat").mkdir()
    Image.fromarray(noise).save(tmp_path / "cat" / "noise.png")
    Image.new("L", (40, 400), 90).save(tmp_path / "cat" / "gray.png")
    Image.new("RGBA", (12, 9), (255, 0, 0, 0)).save(tmp_path / "cat" / "clear.png")
    (tmp_path / "cat" / "damaged.jpg").write_bytes(b"no image")
    run = run_over(tmp_path / "run", {"root": str(tmp_path)})
    names = [f"cat/{name}" for name in ("noise.png", "gray.png", "clear.png", "damaged.jpg", "gone.png")]
    found = thumbnails(run, names)
    assert list(found) == names[:3]
    for thumbnail in found.values():
        head, image = opened(thumbnail)
        assert image.size == (thumbnail.width, thumbnail.height)
        assert max(image.size) <= LONGEST_SIDE
        assert len(base64.b64decode(thumbnail.uri.split(",", 1)[1])) <= MOST_BYTES
        assert head in ("data:image/webp;base64", "data:image/png;base64")
    assert found["cat/noise.png"].height == LONGEST_SIDE
    assert [found[name].coarse for name in names[:3]] == [False, False, True]
    assert opened(found["cat/clear.png"])[1].getpixel((0, 0)) == (255, 255, 255)  # as a viewer shows it


def test_embedded_data_are_shown_as_they_are(tmp_path):
    from sklearn.datasets import load_digits

    [(name, thumbnail)] = thumbnails(run_over(tmp_path, DIGITS), ["digits/0007"]).items()
    assert name == "digits/0007"
    _, image = opened(thumbnail)
    expected = np.round(load_digits().images[7] * (255 / 16)).astype(np.uint8)
    assert np.array_equal(np.asarray(image)[..., 0], expected)
    assert thumbnail.coarse


@pytest.mark.parametrize(
    "datamodule",
    [
        {"_target_": "headstart.data.Folder", "root": "/no/such/folder"},
        {"_target_": "headstart.data.CIFAR10", "data_dir": "/no/such/folder"},
        {"_target_": "somewhere.Else"},
        "nonsense",
    ],
)
def test_data_that_are_gone_are_left_out(tmp_path, datamodule):
    assert thumbnails(run_over(tmp_path, datamodule), ["a.png"]) == {}


def test_a_run_without_its_configuration_has_no_pictures(tmp_path):
    assert thumbnails(RunRecord(tmp_path, "done"), ["a.png"]) == {}


def test_the_page_holds_them_or_does_without(writer):
    images = writer.root.parent / "images"
    choice = {"composed": {"datamodule": {"root": str(images)}}}
    for strategy in ("freeze", "full"):
        for seed in (1, 2, 3):
            writer.run(strategy, seed, **choice)
    without = write_report(writer.root).page.read_text()
    assert "Images on which they disagree" in without
    assert "<img" not in without
    with np.load(next(Path(writer.root).glob("*/predictions_test.npz"))) as stored:
        for name in stored["ids"][1:]:
            (images / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (80, 60), "teal").save(images / name)
    page = write_report(writer.root).page.read_text()
    sources = re.findall(r'<img class="thumb" src="([^"]+)" alt="" width="80" height="60">', page)
    assert 1 <= len(sources) <= 12
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert len(page) - len(without) < 12 * 1.4 * MOST_BYTES
