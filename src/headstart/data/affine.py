"""Random crops, mirroring, shear and zoom, a batch at a time: each image is read once through an affine map.

An image is kept as bytes at one size, from a file just now or from the store of decoded images; what augmentation makes
of it is a function of those bytes and of (seed, epoch, index). So a batch is the same wherever it is made.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from headstart.data.images import to_channels
from headstart.data.input_spec import Fit, InputSpec
from headstart.data.transforms import KEPT, EvalTransform, normalised

DRAWS = 8
"""Random numbers an image and epoch; a multiple of four, since Philox makes four at a time."""

_RATIOS = (3 / 4, 4 / 3)
_ASPECT_BYTES = 4


class AffineAugment:
    """``augment=light`` and ``augment=keras`` for batches of kept images.

    ``light`` crops a rectangle with a random share of the area (``crop`` to 1) and a random aspect ratio between
    3/4 and 4/3, as random resized crops do (Szegedy et al., "Going Deeper with Convolutions", 2015, section 6), and
    scales it bilinearly to the training size. ``keras`` shears and zooms as Keras's ``ImageDataGenerator``: about the
    centre, bilinearly, filled with the nearest pixel; the value at (row, column) ``p`` from the centre is read at
    ``S Z p`` with ``S = [[1, -sin], [0, cos]]`` of the shear's angle and ``Z`` the zooms, so a zoom below 1 enlarges.

    Args:
        spec: what the backbone expects.
        crop: of ``light``: the smallest share of the area; None: ``keras``.
        flip: also mirror every second image left to right.
        shear_range: of ``keras``: up to this many degrees either way.
        zoom_range: of ``keras``: height and width each by a factor between 1 minus this and 1 plus this.
        train_size: (rows, columns) of the augmented images; None: those of the spec.
        kept_size: rows and columns of kept images; None: 8/7 of the larger of training and evaluation size.
        fit: of ``light``: with ``squash`` and ``pad`` a crop has the network's own ratio of sides, give or take a
            third, of the image that was squeezed or bordered to it; else that is the ratio of the original's pixels.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        crop: float | None,
        flip: bool,
        shear_range: float = 0.0,
        zoom_range: float = 0.0,
        train_size: Sequence[int] | None = None,
        kept_size: int | None = None,
        fit: Fit | None = None,
    ) -> None:
        self._crop, self._flip, self._whole = crop, flip, fit in ("squash", "pad")
        self._shear_range, self._zoom_range = shear_range, zoom_range
        height, width = (spec.height, spec.width) if train_size is None else train_size
        self.spec = replace(spec, height=height, width=width)
        if crop is None:
            self.kept = EvalTransform(spec)
        else:
            rows, columns = (
                (kept_size, kept_size)
                if kept_size is not None
                else (round(KEPT * max(height, spec.height)), round(KEPT * max(width, spec.width)))
            )
            whole = spec.fitted("pad" if fit == "pad" else "squash")
            self.kept = EvalTransform(replace(whole, height=rows, width=columns))

    @property
    def row_bytes(self) -> int:
        """Of a kept image: its pixels, then its original width divided by its height."""
        channels, height, width = self.kept.spec.shape
        return channels * height * width + _ASPECT_BYTES

    def keep(self, image: Image.Image) -> np.ndarray:
        """A decoded 8-bit image of any size and mode to ``(row_bytes,)`` bytes."""
        aspect = np.array([image.width / image.height], dtype=np.float32)
        pixels = np.asarray(self.kept.resize(to_channels(image, self.kept.spec.channels)))
        return np.concatenate([pixels.reshape(-1), aspect.view(np.uint8)])

    def __call__(self, rows: Tensor, numbers: np.ndarray) -> Tensor:
        """Kept images and their random numbers to a batch.

        Args:
            rows: ``(B, row_bytes)`` bytes, on the device where the batch is wanted.
            numbers: ``(B, DRAWS)`` of :func:`all_draws` or :func:`draws`.

        Returns: ``(B, C, H, W)`` float32, normalised, channels last in memory.
        """
        channels, height, width = self.kept.spec.shape
        pixels = rows[:, :-_ASPECT_BYTES].reshape(len(rows), height, width, channels)
        aspects = rows[:, -_ASPECT_BYTES:].clone(memory_format=torch.contiguous_format).view(torch.float32)[:, 0]
        images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        shown = self._shown(images, numbers, aspects, "bilinear")
        return normalised(shown.permute(0, 2, 3, 1).contiguous(), self.spec)

    def masks(self, kept: Tensor, numbers: np.ndarray, aspects: Tensor) -> Tensor:
        """Kept masks ``(B, h, w)`` bytes, moved exactly as their images are: ``(B, H, W)`` bytes.

        Args:
            kept: of :meth:`EvalTransform.keep_mask`.
            numbers: ``(B, DRAWS)``, the images' own.
            aspects: ``(B,)`` float32, width divided by height of the original images.
        """
        return self._shown(kept[:, None].float(), numbers, aspects, "nearest")[:, 0].to(torch.uint8)

    def _shown(self, images: Tensor, numbers: np.ndarray, aspects: Tensor, mode: str) -> Tensor:
        """``(B, C, h, w)`` read through the images' maps: ``(B, C, H, W)``."""
        if self._whole:
            aspects = torch.ones_like(aspects)
        # From pageable memory this copy waits for nothing but itself: no step of an accelerator is held up.
        maps = self.maps(torch.from_numpy(numbers).to(images.device, non_blocking=True), aspects)
        size = (*images.shape[:2], self.spec.height, self.spec.width)
        grid = functional.affine_grid(maps, list(size), align_corners=False)
        return functional.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)

    def maps(self, numbers: Tensor, aspects: Tensor) -> Tensor:
        """Where each pixel is read, in coordinates from -1 to 1 over the image: ``(B, 2, 3)`` float32, x before y.

        Args:
            numbers: ``(B, DRAWS)`` float64.
            aspects: ``(B,)``, width divided by height of the original images.
        """
        maps = self._shears(numbers) if self._crop is None else self._crops(numbers, aspects.double(), self._crop)
        if self._flip:
            maps[:, :, 0] *= torch.where(numbers[:, 4] < 0.5, -1.0, 1.0)[:, None]
        return maps.float()

    def _crops(self, numbers: Tensor, aspects: Tensor, least: float) -> Tensor:
        # Areas for which some ratio fits into the image, then a ratio that fits: nothing has to be drawn again.
        lowest, highest = _RATIOS
        largest = torch.minimum(highest / aspects, aspects / lowest).clamp(max=1.0)
        smallest = largest.clamp(max=least)
        area = smallest + numbers[:, 0] * (largest - smallest)
        low, high = (area * aspects).clamp(min=lowest).log(), (aspects / area).clamp(max=highest).log()
        ratio = (low + numbers[:, 1] * (high - low).clamp(min=0.0)).exp()
        width = (area * ratio / aspects).sqrt().clamp(max=1.0)
        height = (area * aspects / ratio).sqrt().clamp(max=1.0)
        # The crop lies anywhere where it fits: its middle is within 1 - width of the image's.
        x, y = (2 * numbers[:, 2] - 1) * (1 - width), (2 * numbers[:, 3] - 1) * (1 - height)
        zero = torch.zeros_like(x)
        return torch.stack([width, zero, x, zero, height, y], dim=1).reshape(-1, 2, 3)

    def _shears(self, numbers: Tensor) -> Tensor:
        angle = math.radians(self._shear_range) * (2 * numbers[:, 0] - 1)
        rows, columns = (1 + self._zoom_range * (2 * numbers[:, place] - 1) for place in (1, 2))
        # From pixels to coordinates: a step of 1 is half the width in x and half the height in y.
        across = -angle.sin() * columns * (self.kept.spec.width / self.kept.spec.height)
        zero = torch.zeros_like(angle)
        return torch.stack([angle.cos() * columns, zero, zero, across, rows, zero], dim=1).reshape(-1, 2, 3)


def draws(seed: int, epoch: int, position: int) -> np.ndarray:
    """``(DRAWS,)`` numbers in [0, 1): a function of seed, epoch and the position in the split.

    They come from one counter-based stream an epoch (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
    2011), so those of one image are found without drawing the others'.
    """
    stream = np.random.Philox(key=_key(seed, epoch), counter=position * DRAWS // 4)
    return np.random.Generator(stream).random(DRAWS)


@lru_cache(maxsize=2)
def all_draws(seed: int, epoch: int, count: int) -> np.ndarray:
    """``(count, DRAWS)``: those of the first ``count`` positions."""
    return np.random.Generator(np.random.Philox(key=_key(seed, epoch))).random((count, DRAWS))


def _key(seed: int, epoch: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{epoch}/augmentation".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")
