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


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_normalised_to_the_bits_of_single_images(channels: int) -> None:
    spec = InputSpec(
        height=24, width=20, channels=channels, mean=(0.485, 0.456, 0.406)[:channels], std=(0.22,) * channels
    )
    transform = EvalTransform(spec)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    shown = transform.show([transform.keep(image) for image in images], torch.device("cpu"))
    single = torch.stack([transform(image) for image in images])
    assert torch.equal(shown, single)
    assert shown.stride() == single.stride()  # another layout would make networks round differently


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
        (InputSpec(channels=6, mean=(0.5,) * 6, std=(0.5,) * 6), {}, "backbone.in_channels=6: images are read with 1"),
        (InputSpec(channels=1), {}, "1 channels but 3 means"),
        (InputSpec(crop_pct=1.5), {}, "crop_pct 1.5"),
    ],
)
def test_impossible_choices(spec: InputSpec, choices: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        transform_of(spec, **choices)


GREEN, RED, WHITE = (0, 255, 0), (255, 0, 0), (255, 255, 255)


def banner() -> Image.Image:
    """120 x 40 pixels: green, 40 white columns in the middle, red."""
    image = Image.new("RGB", (120, 40), WHITE)
    image.paste(GREEN, (0, 0, 40, 40))
    image.paste(RED, (80, 0, 120, 40))
    return image


def pixels_of(image: Tensor, spec: InputSpec) -> np.ndarray:
    """``(H, W, C)`` bytes again."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    return ((image * std + mean) * 255).round().permute(1, 2, 0).numpy().astype(int)


def colours(pixels: np.ndarray, row: int) -> list[tuple[int, ...]]:
    """In the middle of each third of a row."""
    return [tuple(int(value) for value in pixels[row, place]) for place in (5, 20, 34)]


FITTED = [
    ("crop", (WHITE, WHITE, WHITE), (WHITE, WHITE, WHITE)),
    ("squash", (GREEN, WHITE, RED), (GREEN, WHITE, RED)),
    ("pad", (GREEN, WHITE, RED), ((124, 116, 104),) * 3),
]


@pytest.mark.parametrize(("fit", "middle", "top"), FITTED)
@pytest.mark.parametrize("given", [{"crop_pct": 1.0}, {"crop_pct": 1.0, "crop_mode": "squash"}])
def test_fit_decides_what_is_seen_of_an_oblong_image(given: dict, fit: Any, middle: tuple, top: tuple) -> None:
    spec = InputSpec(height=40, width=40, **given).fitted(fit)
    seen = pixels_of(EvalTransform(spec)(banner()), spec)
    assert colours(seen, 20) == list(middle)
    assert colours(seen, 3) == list(top)


def test_without_fit_the_weights_decide() -> None:
    spec = InputSpec(crop_pct=0.9, crop_mode="border")
    assert spec.fitted(None) is spec
    assert InputSpec(crop_pct=0.9).fitted("crop") == InputSpec(crop_pct=0.9)
    assert spec.fitted("pad").crop_pct == spec.fitted("squash").crop_pct == 1.0


@pytest.mark.parametrize(("fit", "middle", "top"), FITTED[1:])
@pytest.mark.parametrize("augment", ["light", "randaug", "keras"])
def test_training_crops_the_fitted_image(
    augment: str, fit: Any, middle: tuple, top: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.data.transforms.RandAugment", lambda **choices: lambda image: image)
    spec = InputSpec(height=40, width=40).fitted(fit)
    transform = transform_of(spec, augment=augment, flip=False, min_crop=1.0, fit=fit)
    if isinstance(transform, AffineAugment):
        seen = transform(torch.from_numpy(transform.keep(banner()))[None], all_draws(0, 0, 1))[0]
    else:
        torch.manual_seed(0)
        seen = transform(banner())
    # Of the whole image a crop of the network's own ratio of sides leaves nothing out, whatever is drawn.
    found = pixels_of(seen, spec)
    assert np.abs(np.array([colours(found, 20), colours(found, 3)]) - np.array([middle, top])).max() <= 2


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_crops_of_a_fitted_image_vary_about_the_networks_shape(fit: Any) -> None:
    spec = InputSpec(height=20, width=60).fitted(fit)
    transform = transform_of(spec, flip=False, min_crop=0.2, fit=fit)
    assert isinstance(transform, AffineAugment)
    maps = transform.maps(torch.from_numpy(all_draws(0, 0, 500)), torch.ones(500))
    ratios = maps[:, 0, 0] / maps[:, 1, 1]
    assert ratios.min() >= 0.75 - 1e-4
    assert ratios.max() <= 4 / 3 + 1e-4
    row = torch.from_numpy(transform.keep(banner())).expand(3, -1)
    near = transform.maps(torch.from_numpy(all_draws(0, 0, 3)), torch.ones(3))
    grid = torch.nn.functional.affine_grid(near, [3, 3, 20, 60], align_corners=False)
    kept = row[:, :-4].reshape(3, *transform.kept.spec.shape[1:], 3).permute(0, 3, 1, 2).float()
    wanted = torch.nn.functional.grid_sample(kept, grid, padding_mode="border", align_corners=False)
    shown = transform(row, all_draws(0, 0, 3))
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    assert torch.allclose((shown * std + mean) * 255, wanted, atol=0.01)
