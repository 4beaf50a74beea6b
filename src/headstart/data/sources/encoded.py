"""Images that lie encoded inside larger files: read where they are, decoded when they are asked for."""

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headstart.data.images import GRAY, decode, look_into, open_image, reader_of, reason
from headstart.data.records import Records
from headstart.system.digest_memory import DigestMemory, in_threads


class Encoded(ABC):
    """An image inside a larger file; nothing of it is kept in memory.

    Attributes:
        max_pixels: a larger one is refused.
    """

    max_pixels: int

    @abstractmethod
    def content(self) -> bytes:
        """As it was encoded."""

    def draw(self, channels: int = 3) -> np.ndarray:
        """``(H, W, 3)`` unsigned bytes, or of as many channels as are asked for."""
        with open_image(io.BytesIO(self.content()), max_pixels=self.max_pixels) as image:
            return np.asarray(decode(image, channels))


def looked_at(
    images: Sequence[Encoded], whole: str | None, memory_path: str | Path | None, max_pixels: int, *, total: int
) -> list[tuple[str, str]]:
    """SHA-256 of each image, and what is wrong with it or nothing; remembered by the digest of what they lie in.

    Args:
        images: all of one file or set.
        total: images of the data set; of few enough, small gray pictures are remembered too.
        whole: digest of it; None: it says nothing of the images.
        memory_path: where that is remembered.
        max_pixels: a larger image counts as unreadable.
    """
    reader, gray = reader_of(total, max_pixels)
    reader += "-within"

    def look(image: Encoded) -> tuple[str, str, bytes]:
        try:
            content = image.content()
        except (OSError, TypeError, ValueError) as error:  # the file that a row names, or no name at all
            return "", reason(error), b""
        return hashlib.sha256(content).hexdigest(), *look_into(content, max_pixels)

    with DigestMemory(memory_path) as memory:
        if whole is not None and (known := memory.checks([whole], reader).get(whole)):
            return [(digest, error) for digest, error in json.loads(known)]
        seen = in_threads(look, images)
        found = [(digest, error) for digest, error, _ in seen]
        for digest, error, picture in seen:
            if gray and not error:
                memory.remember_picture(digest, GRAY, picture)
        if whole is not None:
            memory.remember_check(whole, reader, json.dumps(found))
    return found


def readable(
    images: Sequence[Encoded], targets: np.ndarray, ids: Sequence[str], looks: Sequence[tuple[str, str]]
) -> tuple[Records, list[dict[str, str]]]:
    """The records of a split without the damaged images, and those."""
    keep = [place for place, (_, error) in enumerate(looks) if not error]
    records = Records(
        [images[place] for place in keep],
        targets[keep],
        [ids[place] for place in keep],
        [looks[place][0] for place in keep],
    )
    return records, [{"path": ids[place], "error": error} for place, (_, error) in enumerate(looks) if error]
