"""Decoding of every common kind of image file, and finding the damaged ones."""

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import images
from headstart.data.images import decode, find_bad_images, read_image, to_channels
from headstart.errors import DataError


def gradient(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A smooth RGB picture, so that JPEG keeps it nearly unchanged."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def jpeg_bytes(image: Image.Image, **choices: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **choices)
    return buffer.getvalue()


def stored_mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def difference(image: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(image, dtype=float) - np.asarray(other, dtype=float)).max())


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_rgb_is_read_unchanged(tmp_path: Path, suffix: str) -> None:
    gradient().save(tmp_path / f"image{suffix}")
    assert difference(read_image(tmp_path / f"image{suffix}"), gradient()) == 0


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[:, 2:] = (10, 20, 30, 255)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    read = np.asarray(read_image(tmp_path / "image.png"))
    assert read.shape == (4, 4, 3)
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[0, 3].tolist() == [10, 20, 30]


def test_gray_with_alpha_and_transparent_palette(tmp_path: Path) -> None:
    Image.merge("LA", [Image.new("L", (4, 4), 50), Image.new("L", (4, 4), 0)]).save(tmp_path / "la.png")
    assert np.asarray(read_image(tmp_path / "la.png", 1)).tolist() == [[255] * 4] * 4
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").getpixel((0, 0)) == (200, 100, 50)
    palette.save(tmp_path / "pt.png", transparency=b"\xff\x00")
    assert read_image(tmp_path / "pt.png").getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_jpeg_has_the_colours_of_the_picture(tmp_path: Path) -> None:
    gradient().convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert stored_mode(tmp_path / "cmyk.jpg") == "CMYK"
    assert difference(read_image(tmp_path / "cmyk.jpg"), gradient()) < 12


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bits_are_scaled_by_their_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    assert stored_mode(tmp_path / f"deep{suffix}").startswith("I")
    assert np.asarray(read_image(tmp_path / f"deep{suffix}", 1)).tolist() == [[0, 1, 128, 255]]
    assert read_image(tmp_path / f"deep{suffix}").mode == "RGB"


def test_floating_point_pixels(tmp_path: Path) -> None:
    for name, values, expected in (("unit", [0, 0.5, 1], [0, 128, 255]), ("byte", [0, 7, 200], [0, 7, 200])):
        Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / f"{name}.tif")
        assert np.asarray(read_image(tmp_path / f"{name}.tif", 1)).tolist() == [expected]
    Image.fromarray(np.array([[0, 1e6]], dtype=np.float32)).save(tmp_path / "wild.tif")
    with pytest.raises(DataError, match=r"wild\.tif .*floating-point"):
        read_image(tmp_path / "wild.tif")


def test_32_bit_integers_have_no_meaning_as_an_image(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1_000_000]], dtype=np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(DataError, match="from 0 to 1000000"):
        read_image(tmp_path / "wide.tif")


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_gray_becomes_rgb(tmp_path: Path, mode: str) -> None:
    gradient().convert("L").convert(mode).save(tmp_path / "gray.png")
    red, green, blue = read_image(tmp_path / "gray.png").split()
    assert difference(red, green) == difference(green, blue) == 0


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", quality=95, exif=exif)
    read = read_image(tmp_path / "turned.jpg")
    assert read.size == upright.size
    assert difference(read, upright) < 12


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(tmp_path / "moving.webp").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_channels(channels: int, mode: str) -> None:
    for image in (gradient(), gradient().convert("L"), gradient().convert("RGBA")):
        assert to_channels(image, channels).mode == mode
    with pytest.raises(DataError, match="not 5"):
        to_channels(gradient(), 5)


def test_conversion_to_gray_is_luminance() -> None:
    assert difference(decode(gradient(), 1), gradient().convert("L")) == 0


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"text\.jpg cannot be read as an image: not an image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg"):
        read_image(tmp_path / "gone.jpg")


@pytest.fixture
def dirty(tmp_path: Path) -> list[Path]:
    """Two good files among damaged ones of several kinds."""
    whole, png = jpeg_bytes(gradient((640, 480))), io.BytesIO()
    gradient().save(png, "PNG")
    progressive = jpeg_bytes(gradient((640, 480)), progressive=True)
    contents = {
        "0_good.jpg": whole,
        "1_cut.jpg": whole[: len(whole) * 9 // 10],
        "2_cut_progressive.jpg": progressive[: len(progressive) // 2],
        "3_cut.png": png.getvalue()[: len(png.getvalue()) // 2],
        "4_empty.jpg": b"",
        "5_text.png": b"<html>404</html>",
        "6_good.png": png.getvalue(),
        "7_header_only.jpg": whole[:20],
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return sorted(tmp_path.iterdir())


def test_damaged_files_are_found(dirty: list[Path], tmp_path: Path) -> None:
    digests, bad = find_bad_images(dirty, tmp_path / "memory" / "m.sqlite")
    assert [dirty[position].name[0] for position, _ in bad] == ["1", "2", "3", "4", "5", "7"]
    reasons = {dirty[position].name[0]: error for position, error in bad}
    assert "truncated" in reasons["1"]
    assert "truncated" in reasons["2"]
    assert reasons["4"] == "empty file"
    assert "not an image" in reasons["5"]
    assert len(set(digests)) == len(dirty)


def test_the_check_agrees_with_full_decoding_wherever_a_jpeg_is_cut(tmp_path: Path) -> None:
    """The check decodes at an eighth of the size; it must not pass what training cannot read, nor the reverse."""
    for choices in ({}, {"progressive": True}):
        whole = jpeg_bytes(gradient((97, 61)), **choices)
        paths, fails = [], []
        for cut in [*range(1, len(whole), 61), *range(len(whole) - 6, len(whole))]:
            path = tmp_path / f"{len(choices)}_{cut:06d}.jpg"
            path.write_bytes(whole[:cut])
            paths.append(path)
            try:
                read_image(path)
            except DataError:
                fails.append(len(paths) - 1)
        assert [position for position, _ in find_bad_images(paths, tmp_path / "m.sqlite")[1]] == fails
        assert fails


def test_the_check_is_remembered_by_content(dirty: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then = time.time() - 60
    for path in dirty:
        os.utime(path, (then, then))
    memory = tmp_path / "memory" / "m.sqlite"
    first = find_bad_images(dirty, memory)
    monkeypatch.setattr(images, "_look", lambda path, _: pytest.fail(f"{path} was decoded again"))
    assert find_bad_images(dirty, memory) == first
    renamed = dirty[1].rename(dirty[1].with_name("renamed.jpg"))
    assert find_bad_images([renamed], memory)[1] == [(0, dict(first[1])[1])]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_an_unreadable_image(tmp_path: Path) -> None:
    gradient().save(tmp_path / "secret.png")
    (tmp_path / "secret.png").chmod(0)
    assert find_bad_images([tmp_path / "secret.png"], tmp_path / "m.sqlite")[1] == [(0, "Permission denied")]


def test_a_broken_link_is_an_unreadable_image(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    [(_, error)] = find_bad_images([tmp_path / "link.png"], tmp_path / "m.sqlite")[1]
    assert error == "No such file or directory"


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 40 40
%%EndComments
showpage
"""


def test_no_reader_that_starts_a_program_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the suffix, Pillow would hand this to Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **choices: pytest.fail("Ghostscript started"))
    path = tmp_path / "photo.jpg"
    path.write_bytes(EPS)
    with pytest.raises(DataError, match="not an image, or of an unknown format"):
        read_image(path)
    ((_, why),) = find_bad_images([path], tmp_path / "memory")[1]
    assert why == "not an image, or of an unknown format"


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (300, 200)).save(path)
    assert read_image(path, max_pixels=60_000).size == (300, 200)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    wanted = r"300 x 200 pixels are more than datamodule.max_pixels=59_999; make it smaller, or raise that"
    with pytest.raises(DataError, match=wanted):
        read_image(path, max_pixels=59_999)
    ((_, why),) = find_bad_images([path], tmp_path / "memory", max_pixels=59_999)[1]
    assert "are more than datamodule.max_pixels" in why


def test_another_limit_looks_again(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (300, 200)).save(path)
    assert find_bad_images([path], tmp_path / "memory", max_pixels=1000)[1]
    assert find_bad_images([path], tmp_path / "memory")[1] == []


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_files_are_opened(tmp_path: Path, kind: str) -> None:
    """To read a pipe or a device may never end."""
    path = tmp_path / "image.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(DataError, match=f"it is a {kind}, not a file"):
        read_image(path)
    ((_, why),) = find_bad_images([path], tmp_path / "memory")[1]
    assert why == f"it is a {kind}, not a file"
