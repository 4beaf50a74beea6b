"""A data set of noise images of any size, for measuring memory; see scripts/benchmark.py."""

from typing import Any

import numpy as np

from headstart.data import ImageDataModule
from headstart.data.records import Records, Source


class Noise(ImageDataModule):
    """Two classes of random 64-pixel images on disk, mapped into memory.

    Args:
        images: how many.
        choices: those of :class:`ImageDataModule`.
    """

    def __init__(self, *, images: int, **choices: Any) -> None:
        super().__init__(**choices)
        self.images = images

    def load(self) -> Source:
        """Map a sparse file; its content is zeros, which costs the network what noise would."""
        pixels = np.memmap(f"noise{self.images}.bin", np.uint8, "w+", shape=(self.images, 64, 64, 3))
        targets = np.arange(self.images) % 2
        ids = [f"noise/{i}" for i in range(self.images)]
        records = Records(pixels, targets, ids, [f"{i:064x}" for i in range(self.images)])
        return Source(
            name="noise", splits={"train": records}, classes=("even", "odd"), content_digest=f"noise{self.images}"
        )
