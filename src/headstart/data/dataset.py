"""One split as a torch data set whose augmentation is a function of (seed, epoch, index)."""

import hashlib
import random
from collections.abc import Callable, Iterator
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


class ImageDataset(Dataset[dict[str, Any]]):
    """Images of one split, decoded and transformed on access.

    An item is a dict with ``images`` ``(C, H, W)`` float32, ``targets`` (class position, or a row of numbers) and
    ``index`` (position in the split). It is asked for by ``(epoch, index)``; a plain index means epoch 0, and one
    beyond the length a repetition within the epoch (:class:`headstart.data.sampler.EpochSampler`). With ``random`` the
    generators of Python, NumPy and torch are seeded from (seed, epoch, index) for the length of the transform and then
    put back, so an image is augmented alike whichever worker does it and whatever was drawn before;
    :class:`AffineAugment` is given its numbers.

    Args:
        records: the split.
        transform: a decoded image to ``(C, H, W)``, or an augmentation of kept images.
        channels: of the decoded image.
        seed: of the run.
        random: whether the transform draws random numbers.
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
        random: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.records, self.transform, self.channels, self.max_pixels = records, transform, channels, max_pixels
        self.seed, self.random, self.views = seed, random, 0

    def __len__(self) -> int:
        return len(self.records)

    def image(self, index: int) -> Image.Image:
        """The decoded image before any transform."""
        image = self.records.images[index]
        if isinstance(image, Path):
            return read_image(image, self.channels, max_pixels=self.max_pixels)
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
        if self.random:
            with seeded(self.seed, epoch, index):
                return self.transform(image)
        return self.transform(image)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        position = index % len(self)
        target = self.records.targets[position]
        single = target.item() if target.ndim == 0 else torch.from_numpy(np.array(target))
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
