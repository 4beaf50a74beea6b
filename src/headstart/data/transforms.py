"""From decoded images to what a backbone expects: evaluation exactly as its weights expect, and augmentation."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandAugment, RandomHorizontalFlip, RandomResizedCrop
from torchvision.transforms import functional as F  # noqa: N812

from headstart.data.images import to_channels
from headstart.data.input_spec import InputSpec
from headstart.errors import DataError

Augment = Literal["none", "light", "randaug", "keras"]
AUGMENTS: tuple[str, ...] = get_args(Augment)


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


class TrainTransform:
    """Augmentation of training images. All its randomness comes from torch's default generator.

    Args:
        spec: as for :class:`EvalTransform`; ``none`` augments nothing and equals it.
        augment: ``none``, ``light`` (a mild random crop), ``randaug`` (the same crop, then RandAugment,
            https://arxiv.org/abs/1909.13719, with two operations of magnitude 9) or ``keras`` (the image as in
            evaluation, then sheared and zoomed as by Keras's ``ImageDataGenerator``).
        flip: also mirror every second image left to right.
        min_crop: the random crop keeps at least this share of the image's area.
        shear_range: of ``keras``: up to this many degrees either way.
        zoom_range: of ``keras``: height and width each by a factor between 1 minus this and 1 plus this.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        augment: str,
        flip: bool,
        min_crop: float,
        shear_range: float | None = None,
        zoom_range: float | None = None,
    ) -> None:
        if augment not in AUGMENTS:
            raise DataError(f"datamodule.augment={augment} is unknown; choose {', '.join(AUGMENTS)}.")
        if not 0 < min_crop <= 1:
            raise DataError(f"datamodule.min_crop={min_crop} must be above 0 and at most 1 (the whole image).")
        if augment == "randaug" and spec.channels not in (1, 3):
            raise DataError(f"datamodule.augment=randaug needs gray or RGB images, not {spec.channels} channels.")
        self._shear_range, self._zoom_range = _keras_ranges(augment, shear_range, zoom_range)
        self.spec = checked_spec(spec)
        self.random = augment != "none"
        self._keras, self._flip = augment == "keras", flip
        self._evaluate = EvalTransform(spec)
        interpolation = InterpolationMode(spec.interpolation)
        size = (spec.height, spec.width)
        steps: list[Callable] = [RandomResizedCrop(size, scale=(min_crop, 1.0), interpolation=interpolation)]
        if flip:
            steps.append(RandomHorizontalFlip())
        if augment == "randaug":
            fill = [round(255 * value) for value in spec.mean]
            steps.append(RandAugment(fill=fill, interpolation=InterpolationMode.BILINEAR))
        self._steps = steps

    def __call__(self, image: Image.Image) -> Tensor:
        """A decoded 8-bit image of any size and mode to ``(C, H, W)`` float32."""
        if not self.random:
            return self._evaluate(image)
        image = to_channels(image, self.spec.channels)
        if self._keras:
            return self._as_keras(image)
        for step in self._steps:
            image = step(image)
        return normalise(image, self.spec)

    def _as_keras(self, image: Image.Image) -> Tensor:
        shear, row_zoom, column_zoom, side = torch.rand(4).tolist()
        pixels = np.asarray(self._evaluate.resize(image))
        pixels = shear_and_zoom(
            pixels if pixels.ndim == 3 else pixels[..., None],
            shear=self._shear_range * (2 * shear - 1),
            zoom=(1 + self._zoom_range * (2 * row_zoom - 1), 1 + self._zoom_range * (2 * column_zoom - 1)),
        )
        if self._flip and side < 0.5:
            pixels = pixels[:, ::-1]
        scaled = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))) / 255
        return F.normalize(scaled, torch.tensor(self.spec.mean), torch.tensor(self.spec.std))


def shear_and_zoom(pixels: np.ndarray, *, shear: float, zoom: tuple[float, float]) -> np.ndarray:
    """What Keras's ``apply_affine_transform`` does: bilinear, about the centre, filled with the nearest pixel.

    The value at (row, column) ``p`` from the centre is read at ``S Z p``, with ``S = [[1, -sin], [0, cos]]`` of the
    shear's angle and ``Z`` the zooms of rows and columns; so a zoom below 1 enlarges.

    Args:
        pixels: ``(H, W, C)`` numbers.
        shear: degrees.
        zoom: of rows and of columns.

    Returns: ``(H, W, C)`` float32.
    """
    height, width = pixels.shape[:2]
    sine, cosine = math.sin(math.radians(shear)), math.cos(math.radians(shear))
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    columns = (np.arange(width, dtype=np.float32) - middle_column) * zoom[1]
    rows = (np.arange(height, dtype=np.float32)[:, None] - middle_row) * zoom[0]
    row = np.clip(rows - sine * columns + middle_row, 0, height - 1)
    column = np.broadcast_to(np.clip(cosine * columns + middle_column, 0, width - 1), row.shape)
    top, left = row.astype(np.intp), column.astype(np.intp)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, along = (row - top)[..., None], (column - left)[..., None]
    upper = pixels[top, left] * (1 - along) + pixels[top, right] * along
    lower = pixels[bottom, left] * (1 - along) + pixels[bottom, right] * along
    return (upper * (1 - down) + lower * down).astype(np.float32)


def _keras_ranges(augment: str, shear_range: float | None, zoom_range: float | None) -> tuple[float, float]:
    for name, value in (("shear_range", shear_range), ("zoom_range", zoom_range)):
        if value and augment != "keras":
            raise DataError(
                f"datamodule.{name}={value} has an effect with datamodule.augment=keras only; leave it out."
            )
    shear, zoom = shear_range or 0.0, zoom_range or 0.0
    if not 0 <= shear < 90 or not 0 <= zoom < 1:
        raise DataError(
            f"datamodule.shear_range={shear} must be degrees from 0 to below 90, and datamodule.zoom_range={zoom} at "
            "least 0 and below 1."
        )
    return shear, zoom


def checked_spec(spec: InputSpec) -> InputSpec:
    """The spec itself.

    Raises:
        DataError: mean and std do not have one value a channel, or the size is impossible.
    """
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


def _center_crop_or_pad(image: Image.Image, size: tuple[int, int], fill: list[int]) -> Image.Image:
    missing = (max(0, size[1] - image.width), max(0, size[0] - image.height))
    if any(missing):
        padding = [missing[0] // 2, missing[1] // 2, (missing[0] + 1) // 2, (missing[1] + 1) // 2]
        image = F.pad(image, padding, fill=tuple(fill) if len(fill) > 1 else fill[0])
    top, left = round((image.height - size[0]) / 2.0), round((image.width - size[1]) / 2.0)
    return F.crop(image, top, left, size[0], size[1])
