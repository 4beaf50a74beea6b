"""From decoded images to what a backbone expects: evaluation exactly as its weights expect, and augmentation."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandAugment, RandomHorizontalFlip, RandomResizedCrop
from torchvision.transforms import functional as F  # noqa: N812

from headstart.data.images import MODES, to_channels
from headstart.data.input_spec import Fit, InputSpec
from headstart.errors import DataError

KEPT = 8 / 7
"""Random crops are taken from an image this much larger than they are shown: theirs lie on both sides in resolution."""


class EvalTransform:
    """The preprocessing of evaluation and prediction: the same values as timm's ``create_transform``.

    Args:
        spec: of the weights, with the size to use.
    """

    def __init__(self, spec: InputSpec) -> None:
        self.spec = checked_spec(spec)

    def __call__(self, image: Image.Image) -> Tensor:
        """A decoded 8-bit image of any size and mode to ``(C, H, W)`` float32."""
        return normalise(self.resize(to_channels(image, self.spec.channels)), self.spec)

    def keep(self, image: Image.Image) -> np.ndarray:
        """The same before it is normalised, ``(H, W, C)`` bytes; :meth:`show` does the rest for a batch at once."""
        pixels = np.array(self.resize(to_channels(image, self.spec.channels)))
        return pixels if pixels.ndim == 3 else pixels[..., None]

    def show(self, kept: Sequence[np.ndarray], device: torch.device) -> Tensor:
        """What :meth:`keep` made of images, as ``(B, C, H, W)`` float32 on a device; there only bytes are sent."""
        shown = normalised(torch.from_numpy(np.stack(kept)).to(device), self.spec)
        # Of one channel contiguous() would keep the strides of channels last, by which layers choose their layout.
        return shown.clone(memory_format=torch.contiguous_format)

    def resize(self, image: Image.Image) -> Image.Image:
        """The image at ``(spec.height, spec.width)``, still in bytes."""
        spec = self.spec
        interpolation = InterpolationMode(spec.interpolation)
        target = (spec.height, spec.width)
        scaled = (math.floor(spec.height / spec.crop_pct), math.floor(spec.width / spec.crop_pct))
        if spec.crop_mode == "squash":
            image = F.resize(image, list(scaled), interpolation)
        elif spec.crop_mode == "center" and scaled[0] == scaled[1]:
            image = F.resize(image, [scaled[0]], interpolation)
        else:
            ratios = (image.height / scaled[0], image.width / scaled[1])
            ratio = max(ratios) if spec.crop_mode == "border" else min(ratios)
            image = F.resize(image, [round(image.height / ratio), round(image.width / ratio)], interpolation)
        if spec.crop_mode == "border":
            fill = [round(255 * value) for value in spec.mean]
            return _center_crop_or_pad(image, target, fill)
        return F.center_crop(image, list(target))

    def keep_mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask ``(H, W)`` of class numbers where :meth:`resize` shows its image; no new numbers arise."""
        assert self.spec.crop_mode == "squash"
        assert self.spec.crop_pct == 1.0
        return np.array(Image.fromarray(mask).resize((self.spec.width, self.spec.height), Image.Resampling.NEAREST))


class TrainTransform:
    """``augment=randaug``, an image at a time: a random crop, then two operations of magnitude 9 of RandAugment.

    See https://arxiv.org/abs/1909.13719. All its randomness comes from torch's default generator.

    Args:
        spec: as for :class:`EvalTransform`.
        flip: also mirror every second image left to right.
        min_crop: the random crop keeps at least this share of the image's area.
        train_size: (rows, columns) of the augmented images; None: those of the spec.
        fit: see :class:`headstart.data.affine.AffineAugment`.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        flip: bool,
        min_crop: float,
        train_size: Sequence[int] | None = None,
        fit: Fit | None = None,
    ) -> None:
        if spec.channels not in (1, 3):
            raise DataError(f"datamodule.augment=randaug needs gray or RGB images, not {spec.channels} channels.")
        size = (spec.height, spec.width) if train_size is None else (train_size[0], train_size[1])
        self.spec = replace(spec, height=size[0], width=size[1])
        interpolation = InterpolationMode(spec.interpolation)
        steps: list[Callable] = []
        ratio = (3 / 4, 4 / 3)
        if fit in ("squash", "pad"):
            rows, columns = round(KEPT * max(size[0], spec.height)), round(KEPT * max(size[1], spec.width))
            steps.append(EvalTransform(replace(spec.fitted(fit), height=rows, width=columns)).resize)
            ratio = (ratio[0] * columns / rows, ratio[1] * columns / rows)
        steps.append(RandomResizedCrop(size, scale=(min_crop, 1.0), ratio=ratio, interpolation=interpolation))
        if flip:
            steps.append(RandomHorizontalFlip())
        fill = [round(255 * value) for value in spec.mean]
        self._steps = [*steps, RandAugment(fill=fill, interpolation=InterpolationMode.BILINEAR)]

    def __call__(self, image: Image.Image) -> Tensor:
        """A decoded 8-bit image of any size and mode to ``(C, H, W)`` float32."""
        image = to_channels(image, self.spec.channels)
        for step in self._steps:
            image = step(image)
        return normalise(image, self.spec)


def checked_spec(spec: InputSpec) -> InputSpec:
    """The spec itself.

    Raises:
        DataError: images have no such number of channels, mean and std do not have one value each, or the size is
            impossible.
    """
    if spec.channels not in MODES:
        raise DataError(
            f"backbone.in_channels={spec.channels}: images are read with 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 "
            "channels (RGBA); choose one of these"
        )
    if len(spec.mean) != spec.channels or len(spec.std) != spec.channels:
        raise DataError(
            f"the input spec has {spec.channels} channels but {len(spec.mean)} means and {len(spec.std)} stds; "
            "it needs one value a channel."
        )
    if min(spec.height, spec.width) < 1 or not 0 < spec.crop_pct <= 1:
        raise DataError(
            f"the input spec has size {spec.height}x{spec.width} and crop_pct {spec.crop_pct}; sizes are at least 1 "
            "pixel, crop_pct is above 0 and at most 1."
        )
    return spec


def normalise(image: Image.Image, spec: InputSpec) -> Tensor:
    """Bytes to ``(C, H, W)`` float32 with the weights' mean and standard deviation."""
    return F.normalize(F.to_tensor(image), torch.tensor(spec.mean), torch.tensor(spec.std))


def to_picture(pixels: Tensor, spec: InputSpec) -> Image.Image:
    """Back from ``(C, H, W)`` to an image that people can look at, of 1 or 3 channels."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    values = ((pixels.float() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(values[..., 0] if values.shape[-1] in (1, 2) else values[..., :3])


def normalised(pixels: Tensor, spec: InputSpec) -> Tensor:
    """``(B, H, W, C)`` bytes to ``(B, C, H, W)`` float32 with channels last, value for value as evaluation does it."""
    device = pixels.device
    # Tensors, not numbers: dividing by a number may be done as a multiplication, which rounds differently.
    full, mean, std = (torch.tensor(value, device=device) for value in ([255.0], spec.mean, spec.std))
    return pixels.to(torch.float32, copy=True).div_(full).sub_(mean).div_(std).permute(0, 3, 1, 2)


def _center_crop_or_pad(image: Image.Image, size: tuple[int, int], fill: list[int]) -> Image.Image:
    missing = (max(0, size[1] - image.width), max(0, size[0] - image.height))
    if any(missing):
        padding = [missing[0] // 2, missing[1] // 2, (missing[0] + 1) // 2, (missing[1] + 1) // 2]
        image = F.pad(image, padding, fill=tuple(fill) if len(fill) > 1 else fill[0])
    top, left = round((image.height - size[0]) / 2.0), round((image.width - size[1]) / 2.0)
    return F.crop(image, top, left, size[0], size[1])
