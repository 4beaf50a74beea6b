"""Decoded images: what becomes of an image file before it is normalised, kept as bytes.

For everything that is not frozen. Images are decoded and resized once; afterwards a batch is a copy from memory and a
normalisation, or an augmentation of the whole batch on its device, and is the same to the last bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.config.settings import CacheSettings
from headstart.data.affine import AffineAugment, all_draws, draws
from headstart.data.datamodule import ImageDataModule
from headstart.data.dataset import ImageDataset
from headstart.data.input_spec import InputSpec
from headstart.data.transforms import EvalTransform, normalised
from headstart.store.building import ShardWriter
from headstart.store.decide import gigabytes
from headstart.store.key import pixels_key
from headstart.store.pixels import decoding_threads, pixel_batches
from headstart.store.provide import Wanted
from headstart.system.hardware import memory_bytes

_BATCH = 64
# Beyond this share of the machine's memory the files would be read from disk again and again.
_MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class DecodedImages:
    """One split's decoded images.

    Attributes:
        dataset: the split.
        augment: what varies the stored images, or None.
        kept: how they are stored.
        about: recorded with the entry, for readers.
    """

    dataset: ImageDataset
    augment: AffineAugment | None
    kept: InputSpec
    about: dict[str, str]

    @classmethod
    def of(cls, data: ImageDataModule, split: str, *, augmented: bool) -> "DecodedImages | None":
        """Of a split of a configured datamodule; None where its augmentation needs the original images."""
        dataset = data.dataset(split, augmented=augmented)
        about = {"data": data.source_name, "split": split, "after": "decoding"}
        if isinstance(dataset.transform, AffineAugment):
            return cls(dataset, dataset.transform, dataset.transform.kept.spec, about)
        if isinstance(dataset.transform, EvalTransform):
            return cls(dataset, None, dataset.transform.spec, about)
        return None

    def wanted(self, settings: CacheSettings, *, processes: int) -> Wanted:
        """What to ask of :func:`headstart.store.provide.provide`.

        Args:
            settings: of the cache.
            processes: of the run on this machine; they share its cores.
        """
        dataset, (channels, height, width) = self.dataset, self.kept.shape
        size = channels * height * width if self.augment is None else self.augment.row_bytes

        def write(writers: Mapping[str, ShardWriter], part: range) -> None:
            threads, [writer] = decoding_threads(processes), writers.values()
            for batch in pixel_batches(dataset, part, batch_size=_BATCH, threads=threads):
                writer.append(batch)

        def refuse(row_bytes: int, free_bytes: int) -> str | None:
            size, limit = len(dataset) * row_bytes, min(int(_MEMORY_SHARE * memory_bytes()), free_bytes // 2)
            if settings.max_bytes is not None:
                limit = min(limit, settings.max_bytes)
            return f"{gigabytes(size)} of decoded images exceed the {gigabytes(limit)} kept" if size > limit else None

        key = pixels_key(self.kept, dataset.records.digests, with_aspect=self.augment is not None)
        return Wanted(
            entries={key: self.about},
            rows=len(dataset),
            describe=lambda: (size, {"stored": "uint8"}),
            write=write,
            refuse=refuse,
            what=f"{len(dataset)} decoded {self.about['split']} images",
        )

    def decoder(self, *, channels_last: bool) -> Callable[[Tensor, int, np.ndarray], Tensor]:
        """From stored rows, the epoch and their indices to ``(B, C, H, W)`` images."""
        seed, length = self.dataset.seed, len(self.dataset)

        def decode(rows: Tensor, epoch: int, indices: np.ndarray) -> Tensor:
            if self.augment is None:
                images = normalised(rows, self.kept)
            else:
                view = self.dataset.view(epoch)
                numbers = all_draws(seed, view, length)[indices % length]
                if not self.dataset.views:
                    for place in np.flatnonzero(indices >= length):
                        numbers[place] = draws(seed, view, int(indices[place]))
                images = self.augment(rows, numbers)
            return images if channels_last else images.contiguous(memory_format=torch.contiguous_format)

        return decode
