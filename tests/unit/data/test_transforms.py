"""Evaluation preprocessing equals timm's; augmentation does what its name says."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from headstart.data.affine import AffineAugment, all_draws
from headstart.data.augment import Augmentation
from headstart.data.input_spec import InputSpec
from headstart.data.transforms import EvalTransform
from headstart.errors import DataError

HALF = (0.5, 0.5, 0.5)
SPECS = {
    "resnet": InputSpec(),
    "bicubic_095": InputSpec(interpolation="bicubic", crop_pct=0.95),
    "vit": InputSpec(interpolation="bicubic", crop_pct=0.9, mean=HALF, std=HALF),
    "whole": InputSpec(height=64, width=64, crop_pct=1.0),
    "squash": InputSpec(height=64, width=64, crop_pct=1.0, crop_mode="squash"),
    "squash_crop": InputSpec(height=96, width=96, crop_pct=0.9, crop_mode="squash", interpolation="bicubic"),
    "oblong": InputSpec(height=96, width=64, crop_pct=0.875),
    "oblong_squash": InputSpec(height=64, width=96, crop_pct=1.0, crop_mode="squash"),
    "border": InputSpec(height=64, width=64, crop_pct=1.0, crop_mode="border"),
    "border_crop": InputSpec(height=65, width=64, crop_pct=0.9, crop_mode="border", interpolation="bicubic"),
    "nearest": InputSpec(height=33, width=33, crop_pct=0.96, interpolation="nearest"),
}
SIZES = [(500, 375), (375, 500), (64, 64), (8, 8), (1, 1), (37, 211), (225, 257)]


def noise(size: tuple[int, int] = (50, 40), mode: str = "RGB") -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def timm_transform(spec: InputSpec) -> object:
    return create_transform(
        input_size=spec.shape,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_evaluation_equals_timm(spec: InputSpec, size: tuple[int, int]) -> None:
    image = noise(size)
    made = EvalTransform(spec)(image)
    assert made.shape == spec.shape
    assert torch.equal(made, timm_transform(spec)(image))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "efficientnet_b0", "convnext_tiny"])
def test_evaluation_equals_timm_for_real_weights(name: str) -> None:
    import timm
    from timm.data import resolve_data_config

    config = resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    channels, height, width = config["input_size"]
    spec = InputSpec(
        channels=channels,
        height=height,
        width=width,
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
    )
    assert torch.equal(EvalTransform(spec)(noise((500, 333))), create_transform(**config)(noise((500, 333))))


def test_one_channel_equals_timm() -> None:
    spec = InputSpec(channels=1, height=32, width=32, mean=(0.45,), std=(0.22,), interpolation="bicubic")
    assert torch.equal(EvalTransform(spec)(noise(mode="RGB")), timm_transform(spec)(noise(mode="L")))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_other_modes_become_the_channels_of_the_weights(mode: str) -> None:
    assert EvalTransform(InputSpec(height=16, width=16))(noise(mode=mode)).shape == (3, 16, 16)


def transform_of(spec: InputSpec, **choices) -> Any:
    return Augmentation(**({"augment": "light", "flip": True, "min_crop": 0.5} | choices)).transform(spec)


def augmented(augment: str, draws: int = 40) -> list[Tensor]:
    transform = transform_of(InputSpec(height=32, width=32), augment=augment)
    torch.manual_seed(0)
    if isinstance(transform, AffineAugment):
        return list(transform(torch.from_numpy(transform.keep(noise())).expand(draws, -1), all_draws(0, 0, draws)))
    return [transform(noise()) for _ in range(draws)]


def test_none_equals_evaluation() -> None:
    assert all(
        torch.equal(image, EvalTransform(InputSpec(height=32, width=32))(noise())) for image in augmented("none")
    )


@pytest.mark.parametrize("augment", ["light", "keras", "randaug"])
def test_augmented_images_vary_and_keep_shape_and_range(augment: str) -> None:
    images = augmented(augment)
    assert all(image.shape == (3, 32, 32) and image.dtype == torch.float32 for image in images)
    assert len({image.numpy().tobytes() for image in images}) == (2 if augment == "keras" else len(images))
    assert max(image.abs().max() for image in images) < 2.7


@pytest.mark.parametrize("augment", ["light", "randaug"])
def test_training_images_may_be_smaller(augment: str) -> None:
    transform = transform_of(InputSpec(height=32, width=32), augment=augment, train_size=(24, 20))
    if isinstance(transform, AffineAugment):
        assert transform(torch.from_numpy(transform.keep(noise()))[None], all_draws(0, 0, 1)).shape == (1, 3, 24, 20)
    else:
        assert transform(noise()).shape == (3, 24, 20)


@pytest.mark.parametrize(
    ("spec", "choices", "message"),
    [
        (InputSpec(channels=4, mean=(0.5,) * 4, std=(0.5,) * 4), {"augment": "randaug"}, "not 4 channels"),
        (InputSpec(channels=1), {}, "1 channels but 3 means"),
        (InputSpec(crop_pct=1.5), {}, "crop_pct 1.5"),
    ],
)
def test_impossible_choices(spec: InputSpec, choices: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        transform_of(spec, **choices)
