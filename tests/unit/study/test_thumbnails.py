"""Pictures in the report: of files and of computed data, small, inside the page, and no report fails without them."""

import base64
import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.sources import shards, torchvision_sets
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


def test_what_a_run_names_beside_this_package_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Evil: ...")
    monkeypatch.syspath_prepend(tmp_path)
    assert thumbnails(run_over(tmp_path / "run", {"_target_": "trap.Evil"}), ["a.png"]) == {}
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("datamodule", "name"),
    [
        ({"_target_": "headstart.data.Fractals", "categories": 10**9, "per_category": 10**9}, "fractals/0000000003/5"),
        ({"_target_": "headstart.data.Shapes", "images": 10**9, "task": "segmentation"}, "shapes/0000000003"),
    ],
)
def test_of_drawn_data_in_any_number_only_what_is_shown_is_drawn(tmp_path, datamodule, name):
    found = thumbnails(run_over(tmp_path, datamodule), [name, "other/1"])
    assert list(found) == [name]
    assert thumbnails(run_over(tmp_path, {**datamodule, "size": 10**6}), [name]) == {}


def test_nothing_is_fetched_for_a_picture(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torchvision_sets, "downloading", lambda *place, **size: asked.append(place))
    cifar = {"_target_": "headstart.data.CIFAR10", "data_dir": str(tmp_path)}
    assert thumbnails(run_over(tmp_path, cifar), ["cifar10/1"]) == {}
    assert not asked


def encoded(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def test_images_in_tar_files_are_shown_and_no_others_are_read(tmp_path, monkeypatch):
    for shard in ("train-0", "train-1"):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as file:
            for number in range(4):
                for suffix, content in (("png", encoded(40 * number)), ("cls", b"1")):
                    info = tarfile.TarInfo(f"{number}.{suffix}")
                    info.size = len(content)
                    file.addfile(info, io.BytesIO(content))
    run = run_over(tmp_path / "run", {"_target_": "headstart.data.WebDataset", "root": str(tmp_path)})
    read = []
    monkeypatch.setattr(shards, "read_at", lambda *place, true=shards.read_at: read.append(place) or true(*place))
    found = thumbnails(run, ["train-1/2", "train-0/9", "other/1"])
    assert list(found) == ["train-1/2"]
    assert abs(np.asarray(opened(found["train-1/2"])[1]).astype(int) - 80).max() <= 4
    assert len(read) == 1


@pytest.mark.parametrize("how", ["save_to_disk", "parquet"])
def test_images_of_hugging_faces_library_are_shown(tmp_path, how):
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["a", "b"])
    images = [{"bytes": encoded(20 * number), "path": None} for number in range(12)]
    content = {"image": images, "label": [number % 2 for number in range(12)]}
    table = datasets.Dataset.from_dict(content, datasets.Features({"image": datasets.Image(), "label": names}))
    if how == "save_to_disk":
        table.save_to_disk(str(tmp_path / "set"))
    else:
        (tmp_path / "set").mkdir()
        table.to_parquet(str(tmp_path / "set" / "train.parquet"))
    run = run_over(tmp_path / "run", {"_target_": "headstart.data.HuggingFace", "root": str(tmp_path / "set")})
    found = thumbnails(run, ["train/07", "train/99"])
    assert list(found) == ["train/07"]
    assert abs(np.asarray(opened(found["train/07"])[1]).astype(int) - 140).max() <= 4


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
