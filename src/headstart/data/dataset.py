"""One split as a torch data set whose augmentation is a function of (seed, epoch, index)."""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from headstart.data.affine import AffineAugment, draws
from headstart.data.images import MAX_PIXELS, read_image
from headstart.data.records import Records
from headstart.data.sources.encoded import Encoded
from headstart.data.transforms import EvalTransform, TrainTransform

# Of masks, at the size that images are kept at; the others are read anew.
_REMEMBERED_BYTES = 256 * 2**20


class ImageDataset(Dataset[dict[str, Any]]):
    """Images of one split, decoded and transformed on access.

    An item is a dict with ``images`` ``(C, H, W)`` float32, ``targets`` (class position, a row of numbers, or a mask
    ``(H, W)``) and ``index`` (position in the split). It is asked for by ``(epoch, index)``; a plain index means epoch
    0, and one beyond the length a repetition within the epoch (:class:`headstart.data.sampler.EpochSampler`). For a
    :class:`TrainTransform` the generators of Python, NumPy and torch are seeded from (seed, epoch, index) and then put
    back, so an image is augmented alike whichever worker does it and whatever was drawn before;
    :class:`AffineAugment` is given its numbers.

    Args:
        records: the split.
        transform: a decoded image to ``(C, H, W)``, or an augmentation of kept images.
        channels: of the decoded image.
        seed: of the run.
        max_pixels: of a file; larger ones are refused.

    Attributes:
        views: how many augmented views of an image take turns; 0: each epoch shows new ones.
    """

    def __init__(
        self,
        records: Records,
        transform: Callable[[Image.Image], Tensor] | AffineAugment,
        *,
        channels: int,
        seed: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.records, self.transform, self.channels, self.max_pixels = records, transform, channels, max_pixels
        self.seed, self.views = seed, 0
        self._masks: dict[int, tuple[Tensor, float]] = {}

    def __len__(self) -> int:
        return len(self.records)

    def image(self, index: int) -> Image.Image:
        """The decoded image before any transform."""
        image = self.records.images[index]
        if isinstance(image, Path):
            return read_image(image, self.channels, max_pixels=self.max_pixels)
        if isinstance(image, Encoded):
            return Image.fromarray(image.draw(self.channels))
        pixels = image if isinstance(image, np.ndarray) else image.draw()
        return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)

    def view(self, epoch: int) -> int:
        """Which view of the images an epoch shows."""
        return epoch % self.views if self.views else epoch

    def shown(self, image: Image.Image, epoch: int, index: int) -> Tensor:
        """What training or evaluation sees of a decoded image: ``(C, H, W)`` float32."""
        if isinstance(self.transform, AffineAugment):
            row = torch.from_numpy(self.transform.keep(image))
            return self.transform(row[None], draws(self.seed, epoch, index)[None])[0].contiguous()
        if isinstance(self.transform, TrainTransform):
            with seeded(self.seed, epoch, index):
                return self.transform(image)
        return self.transform(image)

    def masks(self, epoch: int, positions: Iterable[int]) -> Tensor:
        """The masks of images as an epoch shows them, ``(B, H, W)`` bytes."""
        places = [int(position) for position in positions]
        rows, aspects = zip(*(self._kept_mask(place) for place in places), strict=True)
        kept = torch.stack(rows)
        if not isinstance(self.transform, AffineAugment):
            return kept
        numbers = np.stack([draws(self.seed, self.view(epoch), place) for place in places])
        return self.transform.masks(kept, numbers, torch.tensor(aspects))

    def _kept_mask(self, place: int) -> tuple[Tensor, float]:
        """A mask at the size that images are kept at, and its own width divided by its height."""
        found = self._masks.get(place)
        if found is None:
            assert self.records.masks is not None
            mask = self.records.masks.read(place)
            kept = self.transform.kept if isinstance(self.transform, AffineAugment) else self.transform
            assert isinstance(kept, EvalTransform)  # another one would move images without their masks
            found = torch.from_numpy(kept.keep_mask(mask)), mask.shape[1] / mask.shape[0]
            if (len(self._masks) + 1) * found[0].numel() <= _REMEMBERED_BYTES:
                self._masks[place] = found
        return found

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        position = index % len(self)
        target = self.records.targets[position]
        single = target.item() if target.ndim == 0 else torch.from_numpy(np.array(target))
        if self.records.masks is not None:
            single = self.masks(epoch, [position])[0]
        # Stored views take turns by epoch: there every repetition shows the same one.
        image = self.shown(self.image(position), self.view(epoch), position if self.views else index)
        return {"images": image, "targets": single, "index": position}


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed the CPU generators of Python, NumPy and torch from these numbers, and restore them afterwards.

    Generators of accelerators are left alone.
    """
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest()
    first, second = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(first)
        np.random.seed(second % 2**32)
        torch.default_generator.manual_seed(second)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
