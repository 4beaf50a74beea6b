"""Image files to 8-bit pixels: every common mode decoded as a viewer would show it, and a check that they decode.

Files may come from anywhere, so nothing in one is trusted: only regular files are opened, only by readers of pixel
formats (Pillow's reader of EPS would start another program, whatever the file is called), and a file whose header
announces more than ``max_pixels`` is refused before it is decoded.
"""

import io
import logging
import struct
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from headstart.data.similar import MOST_COMPARED, small_gray
from headstart.data.sources.tar_files import read_within
from headstart.errors import DataError
from headstart.system.digest_memory import UNREADABLE, DigestMemory, file_digests, in_threads
from headstart.system.regular import check_regular

logger = logging.getLogger(__name__)

_ORIENTATION = 0x0112
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG2000", "AVIF", "DIB")
"""Names of Pillow's readers that are tried, whatever the suffix says."""

MAX_PIXELS = 80_000_000
"""Of one image by default: more than cameras take, and at most a few hundred megabytes each while it is decoded."""

READER = f"pillow-{PIL.__version__}-2"
"""Part of the key of remembered checks; raise the last number when decoding here changes."""
GRAY = f"{READER}-gray"
"""By this name the small gray picture of an image is remembered."""
# A JPEG is decoded at no more than an eighth to a half of its size: enough for a picture of 32 pixels.
_DRAFT = (160, 160)
DECODE_ERRORS = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    MemoryError,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise on damaged files."""


def read_image(path: str | Path, channels: int = 3, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a file, or one inside a tar file (``photos.tar/a.jpg``), to 8 bits and this many channels.

    Raises:
        DataError: the file is missing, damaged, no regular file, larger than ``max_pixels`` or of a kind that has no
            meaning as an image; names the path.
    """
    try:
        with open_image(_found(path), max_pixels=max_pixels) as image:
            return decode(image, channels)
    except DECODE_ERRORS as error:
        raise DataError(f"{path} cannot be read as an image: {reason(error)}") from error
    except DataError as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def _found(path: str | Path) -> str | Path | io.BytesIO:
    """A regular file, or what a path into a tar file names."""
    try:
        check_regular(path)
        return path
    except NotADirectoryError:
        return io.BytesIO(read_within(path))


def open_image(file: str | Path | io.BytesIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header of an image file.

    Raises:
        DataError: it announces more than ``max_pixels``.
        OSError: and what else Pillow raises where it is no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is this package's
        image = Image.open(file, formats=_known_formats())
    pixels = image.width * image.height
    if pixels > max_pixels:
        size = f"{image.width} x {image.height} pixels"
        image.close()
        raise DataError(f"{size} are more than datamodule.max_pixels={max_pixels:_}; make it smaller, or raise that")
    return image


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def decode(image: Image.Image, channels: int = 3) -> Image.Image:
    """An opened image upright, in 8 bits, with 1 (luminance), 2 (with alpha), 3 (RGB) or 4 channels (RGBA).

    The EXIF orientation is applied. 16-bit values are scaled by their range, not per image. Transparency is laid on
    white where the result has no alpha. Of an animation the first frame is taken.
    """
    image.load()
    return to_channels(_to_8_bits(_upright(image)), channels)


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """An 8-bit image with this many channels.

    Raises:
        DataError: there is no such kind of image.
    """
    if channels not in MODES:
        raise DataError(f"images have 1, 2, 3 or 4 channels, not {channels}; choose another backbone.in_channels.")
    mode = MODES[channels]
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        if channels in (1, 3):
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
    if mode != "RGBA" and image.mode not in ("RGB", "RGBA", "L"):
        image = image.convert("RGB")
    return image.convert(mode)


def find_bad_images(
    paths: list[Path], memory_path: str | Path | None = None, *, max_pixels: int = MAX_PIXELS
) -> tuple[list[str], list[tuple[int, str]]]:
    """Decode every file once and tell which cannot be decoded.

    A truncated file has a good header, so only decoding finds it; JPEGs are decoded at an eighth to a half of their
    size, which reads all of the data at a fraction of the time. The outcome is remembered by content and Pillow
    version: the first look at a folder costs one pass over it (about 1 to 2 ms of a core per photograph of half a
    megapixel), later ones a few microseconds a file. So what is usable is fixed before training, alike for every
    process. Of no more than ``MOST_COMPARED`` files the same pass leaves small gray pictures in the memory.

    Returns: the content digests, and the positions of bad files with the reasons.
    """
    digests = file_digests(paths, memory_path)
    reader, gray = reader_of(len(paths), max_pixels)
    with DigestMemory(memory_path) as memory:
        errors = memory.checks(digests, reader)
        first_with = {digest: path for path, digest in zip(reversed(paths), reversed(digests), strict=True)}
        errors |= {digest: digest.removeprefix(UNREADABLE) for digest in digests if digest.startswith(UNREADABLE)}
        unknown = [digest for digest in first_with if digest not in errors]

        def check(digest: str) -> tuple[str, bytes]:
            return _look(first_with[digest], max_pixels)

        if len(unknown) > 20_000:
            logger.info("checking that %d images can be decoded; this is remembered", len(unknown))
        for digest, (error, picture) in zip(unknown, in_threads(check, unknown), strict=True):
            errors[digest] = error
            memory.remember_check(digest, reader, error)
            if gray and not error:
                memory.remember_picture(digest, GRAY, picture)
    return digests, [(position, errors[digest]) for position, digest in enumerate(digests) if errors[digest]]


def reason(error: BaseException) -> str:
    """A decoding error in words, without the path or object it names."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    return str(error) or type(error).__name__


def _look(path: Path, max_pixels: int) -> tuple[str, bytes]:
    try:
        return look_into(path.read_bytes(), max_pixels)
    except DECODE_ERRORS as error:
        return reason(error), b""


def look_into(content: bytes, max_pixels: int) -> tuple[str, bytes]:
    """Why the content of an image file cannot be decoded, and where it can, nothing and its small gray picture."""
    if not content:
        return "empty file", b""
    try:
        with open_image(io.BytesIO(content), max_pixels=max_pixels) as image:
            return "", gray_of(image).tobytes()
    except (*DECODE_ERRORS, DataError) as error:
        return reason(error), b""


def gray_of(image: Image.Image) -> np.ndarray:
    """The small gray picture of an opened image; a JPEG is read whole, and decoded no larger than that takes."""
    if image.format == "JPEG":
        image.draft("L", _DRAFT)
    return small_gray(decode(image))


def reader_of(images: int, max_pixels: int) -> tuple[str, bool]:
    """By which name it is remembered whether these images can be decoded, and whether with small gray pictures."""
    gray = images <= MOST_COMPARED
    return f"{READER}-{max_pixels}{'-gray' if gray else ''}", gray


def orientation(image: Image.Image) -> int:
    """Of its EXIF data, 1 to 8; 1 is upright, also where they are damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except DECODE_ERRORS:
        return 1


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODE_ERRORS:  # damaged EXIF data: the pixels are good, the orientation is unknown
        return image


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"integer pixels from {values.min()} to {values.max()}; only 8 and 16 bits are supported")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        numbers = np.asarray(image, dtype=np.float64)
        if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > 255:
            raise ValueError("floating-point pixels must be within 0 to 1, or 0 to 255")
        return Image.fromarray(np.round(numbers * (255 if numbers.max() <= 1 else 1)).astype(np.uint8))
    return image


def report_bad(bad: Sequence[Mapping[str, str]], on_bad_image: str) -> None:
    """Tell which images are unreadable.

    Raises:
        DataError: with ``raise``.
    """
    listed = "; ".join(f"{entry['path']} ({entry['error']})" for entry in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    if on_bad_image == "raise":
        raise DataError(
            f"{len(bad)} unreadable image(s): {listed}{more}. Repair or remove them, or leave them out with "
            "datamodule.on_bad_image=skip."
        )
    logger.warning("left out %d unreadable image(s): %s%s", len(bad), listed, more)
