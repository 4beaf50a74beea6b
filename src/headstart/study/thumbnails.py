"""Small pictures of single images for the report, inside the page; what is not there any more is left out."""

import base64
import io
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.config.foreign import foreign_component
from headstart.config.settings import Component
from headstart.data.images import decode, read_image
from headstart.runs.reader import RunRecord, read_config

LONGEST_SIDE = 96
MOST_BYTES = 6000
"""Of one picture; a page of twelve stays below 100 kB of them."""

_QUALITIES = (80, 60, 40, 20)
_SMALL = 32


@dataclass(frozen=True)
class Thumbnail:
    """A picture for the page.

    Attributes:
        uri: ``data:image/…``.
        width: in pixels of the picture.
        height: likewise.
        coarse: it has so few pixels that each should be seen as it is.
    """

    uri: str
    width: int
    height: int
    coarse: bool


def thumbnails(run: RunRecord, ids: Sequence[str]) -> dict[str, Thumbnail]:
    """Pictures of images by their names; only of those that can be found where the run found them.

    Args:
        run: any run over these images.
        ids: their names in its predictions.
    """
    try:
        found = _images(run, ids)
    except Exception:  # A report is worth having without pictures, whatever became of the data.
        return {}
    pictures = {name: thumbnail(image) for name, image in found.items()}
    return {name: picture for name, picture in pictures.items() if picture is not None}


def _images(run: RunRecord, ids: Sequence[str]) -> dict[str, Image.Image]:
    choices = read_config(run.path)
    config = choices["datamodule"]
    roots = [Path(config[key]) for key in ("root", "data_dir") if config.get(key)]
    found: dict[str, Image.Image] = {}
    for name in ids:
        path = next((root / name for root in roots if (root / name).is_file()), None)
        if path is not None:
            try:
                found[name] = read_image(path)
            except Exception:  # damaged since, or of a kind that has no meaning as an image
                continue
    if found:
        return found
    chosen = foreign_component(choices, "datamodule", run.path)
    if hasattr(chosen.factory, "find"):
        return _within(chosen, ids)
    held_elsewhere = config.get("root") or (roots and not all(root.is_dir() for root in roots))
    return {} if held_elsewhere else _computed(chosen, set(ids))


def _within(chosen: Component, ids: Sequence[str]) -> dict[str, Image.Image]:
    """Of a data set whose images lie inside larger files."""
    data = chosen.factory(**{"seed": 0, "batch_size": 1, **chosen.arguments})
    found: dict[str, Image.Image] = {}
    for name, image in data.find(ids).items():
        with suppress(Exception):  # damaged since
            found[name] = Image.fromarray(image.draw())
    return found


def _computed(chosen: Component, ids: set[str]) -> dict[str, Image.Image]:
    """Of a data set that is no folder of files: asked of its own class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = chosen.factory(**{"seed": 0, "batch_size": 1, **chosen.arguments})
        data.download = False  # a report fetches nothing
        source = data.load()
    found: dict[str, Image.Image] = {}
    for records in source.splits.values():
        for place, known in enumerate(records.ids):
            if known in ids:
                image = records.images[place]
                pixels = image if isinstance(image, np.ndarray) else image.draw()
                found[known] = decode(Image.fromarray(np.asarray(pixels).squeeze()))
    return found


def thumbnail(image: Image.Image) -> Thumbnail | None:
    """A decoded image as PNG where that is small, as WebP in the best quality that fits otherwise."""
    coarse = max(image.size) <= _SMALL
    image = image.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    kinds: list[dict[str, Any]] = [{"format": "PNG", "optimize": True}] if coarse else []
    for choice in [*kinds, *({"format": "WEBP", "quality": quality} for quality in _QUALITIES)]:
        file = io.BytesIO()
        image.save(file, **choice)
        if file.tell() <= MOST_BYTES:
            text = base64.b64encode(file.getvalue()).decode("ascii")
            return Thumbnail(f"data:image/{choice['format'].lower()};base64,{text}", *image.size, coarse)
    return None
