"""A data set of images without content, of any number and size, for measuring; see scripts/benchmark.py."""

from typing import Any

import numpy as np

from headstart.data import ImageDataModule
from headstart.data.records import Records, Source


class Noise(ImageDataModule):
    """Two classes of images on disk, mapped into memory.

    Args:
        images: how many.
        side: pixels.
        choices: those of :class:`ImageDataModule`.
    """

    def __init__(self, *, images: int, side: int = 64, **choices: Any) -> None:
        super().__init__(**choices)
        self.images, self.side = images, side

    def load(self) -> Source:
        """Map a sparse file; its content is zeros, which costs the network what noise would."""
        shape, name = (self.images, self.side, self.side, 3), f"noise{self.images}x{self.side}"
        pixels = np.memmap(f"{name}.bin", np.uint8, "w+", shape=shape)
        targets = np.arange(self.images) % 2
        ids = [f"noise/{i}" for i in range(self.images)]
        records = Records(pixels, targets, ids, [f"{i:064x}" for i in range(self.images)])
        return Source(name="noise", splits={"train": records}, classes=("even", "odd"), content_digest=name)
