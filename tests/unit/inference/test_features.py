"""Features and neighbours, by a backbone whose features are the image itself: its mean colour."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.backbones.contract import FeatureSpec
from headstart.commands.similar import main as similar
from headstart.data.input_spec import InputSpec
from headstart.data.transforms import EvalTransform
from headstart.errors import ConfigError, DataError, RunError
from headstart.inference.features import FORMATS, Extractor, read_features, write_features
from headstart.inference.nearest import nearest, write_page
from headstart.inference.rows import check_output

COLOURS = {"red": (250, 0, 0), "dark red": (125, 0, 0), "orange": (250, 120, 0), "blue": (0, 0, 250)}


class Colour(nn.Module):
    features = FeatureSpec(dim=3, shape=(3, 8, 8), layout="NCHW")
    feature_dim = 3

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images


@pytest.fixture
def extractor() -> Extractor:
    spec = InputSpec(height=8, width=8, mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)
    return Extractor(Colour(), EvalTransform(spec), "colours")


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (10, 12), colour).save(folder / f"{name}.png")
    return [str(folder / f"{name}.png") for name in COLOURS]


def test_features_come_with_the_names_of_their_images(
    extractor: Extractor, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "broken.png").write_text("x")
    output = tmp_path / "deeper" / "out.npz"
    given = [photos[0], str(tmp_path / "broken.png"), *photos[1:]]
    written = write_features(extractor, given, output, batch_size=2, device="cpu")
    assert (written.images, written.unreadable, written.stored) == (4, 1, 0)
    assert "skipped: " in (said := capsys.readouterr().err)
    assert "broken.png cannot be read" in said
    found = read_features(output)
    assert (found.ids, found.source, found.vectors.dtype) == (photos, "colours", np.float32)
    np.testing.assert_allclose(found.vectors, np.array(list(COLOURS.values())) / 255, atol=1e-6)
    assert [path.name for path in output.parent.iterdir()] == ["out.npz"]


def test_parquet_has_the_same(extractor: Extractor, photos: list[str], tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_features(extractor, photos, tmp_path / "out.parquet", device="cpu")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column("path").to_pylist() == photos
    np.testing.assert_allclose(table.column("features").to_pylist(), np.array(list(COLOURS.values())) / 255, atol=1e-6)


class EndedError(Exception):
    """Of a process, in the middle of its work."""


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_after_a_kill_the_rest_is_made_and_nothing_twice(
    extractor: Extractor, photos: list[str], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, suffix: str
):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("headstart.inference.part.SECONDS", 0)
    (tmp_path / "broken.png").write_text("x")
    given = [photos[0], str(tmp_path / "broken.png"), *photos[1:]]
    whole, output = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    write_features(extractor, given, whole, batch_size=2, device="cpu")
    seen: list[int] = []
    real = Colour.forward_features

    def ends(network: Colour, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        if len(seen) == 3:
            raise EndedError
        return real(network, images)

    monkeypatch.setattr(Colour, "forward_features", ends)
    with pytest.raises(EndedError):
        write_features(extractor, given, output, batch_size=2, device="cpu")
    assert not output.exists()
    capsys.readouterr()
    written = write_features(extractor, given, output, batch_size=2, device="cpu")
    assert seen == [1, 2, 1, 1]
    assert (written.images, written.unreadable) == (4, 1)
    assert "going on after 4 images of an earlier start" in capsys.readouterr().err
    assert {path.name for path in tmp_path.glob("*out*")} == {output.name}
    if suffix == ".parquet":
        assert output.read_bytes() == whole.read_bytes()
    else:
        ours, theirs = read_features(output), read_features(whole)
        assert (ours.ids, ours.source) == (theirs.ids, theirs.source)
        np.testing.assert_array_equal(ours.vectors, theirs.vectors)


def test_what_cannot_be_written_or_read_is_said(extractor: Extractor, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"out\.csv: the suffix names the format: \.npz, \.parquet"):
        check_output(tmp_path / "out.csv", FORMATS)
    (tmp_path / "x.npz").write_text("x")
    with pytest.raises(DataError, match=r"holds no features of `headstart features"):
        read_features(tmp_path / "x.npz")
    with pytest.raises(DataError, match="none of 1 images can be read"):
        write_features(extractor, [str(tmp_path / "x.npz")], tmp_path / "out.npz", device="cpu")


@pytest.mark.parametrize("stored", [False, True])
def test_the_nearest_are_those_of_the_smallest_angle(
    extractor: Extractor, photos: list[str], tmp_path: Path, stored: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("headstart.inference.nearest._AT_ONCE", 3)
    write_features(extractor, photos, tmp_path / "out.npz", device="cpu")
    among = read_features(tmp_path / "out.npz") if stored else iter(photos)
    found, skipped = nearest(extractor, [photos[0], photos[3]], among, count=2, device="cpu")
    assert [[Path(one.path).stem for one in near] for near in found] == [["dark red", "orange"], ["red", "dark red"]]
    assert found[0][0].cosine == pytest.approx(1)
    assert found[0][1].cosine == pytest.approx(250 / np.hypot(250, 120), abs=1e-3)
    assert found[1][0].cosine == pytest.approx(0, abs=1e-6)
    assert skipped == []


def test_features_of_another_model_are_not_compared(extractor: Extractor, photos: list[str], tmp_path: Path):
    other = Extractor(extractor.backbone, extractor.transform, "other")
    write_features(other, photos, tmp_path / "out.npz", device="cpu")
    with pytest.raises(RunError, match="the features are of other, not of colours"):
        nearest(extractor, photos[:1], read_features(tmp_path / "out.npz"), device="cpu")
    with pytest.raises(DataError, match="no other image to look through"):
        nearest(extractor, photos[:1], iter(photos[:1]), device="cpu")


def test_the_page_needs_nothing_else(extractor: Extractor, photos: list[str], tmp_path: Path):
    found, _ = nearest(extractor, photos[:1], iter(photos), device="cpu")
    Path(found[0][-1].path).unlink()
    write_page(tmp_path / "page.html", "colours", photos[:1], found)
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:image/') == 3
    assert "src=" not in page.replace('src="data:image/', "")
    assert "photos/dark red.png" in page


def test_stored_features_stand_alone(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        similar(["run", "a.png", "--among", "f.npz", "photos"])
    assert "--among f.npz stands alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"features": np.zeros((3, 3), np.float32)}, "is damaged"),
        ({"features": np.full((1, 3), np.nan, np.float32)}, "or some are no numbers"),
        ({"features": np.zeros((1, 3), np.int64)}, "is damaged"),
        ({"ids": np.arange(1)}, "is damaged"),
        ({"ids": np.array([["a"]])}, "is damaged"),
        ({"ids": np.array([{}])}, "holds no features"),
    ],
)
def test_a_file_of_anybodys_is_checked(changed: dict, said: str, tmp_path: Path):
    whole = {"ids": np.array(["a"]), "features": np.zeros((1, 3), np.float32), "source": np.array("colours")}
    np.savez(tmp_path / "whole.npz", **whole)
    assert read_features(tmp_path / "whole.npz").ids == ["a"]
    np.savez(tmp_path / "x.npz", **(whole | changed))
    with pytest.raises(DataError, match=said):
        read_features(tmp_path / "x.npz")


def test_features_of_another_length_and_names_that_are_no_files(
    extractor: Extractor, photos: list[str], tmp_path: Path
):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = np.array(["a\0b", str(tmp_path / "loop")])
    for length in (3, 4):
        np.savez(tmp_path / "x.npz", ids=names, features=np.ones((2, length), np.float32), source=extractor.source)
        if length == 4:
            with pytest.raises(RunError, match="make them again"):
                nearest(extractor, photos[:1], read_features(tmp_path / "x.npz"), device="cpu")
        else:
            [found], _ = nearest(extractor, photos[:1], read_features(tmp_path / "x.npz"), device="cpu")
            assert {one.path for one in found} == set(names)
            write_page(tmp_path / "page.html", extractor.source, photos[:1], [found])
