"""What stored activations depend on, as one key.

Content decides, never a name alone: the tensors of the prefix, the bytes of the images. What this leaves out
(heads, optimizers, seeds, later stages, labels) may differ between runs that share an entry.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from PIL import features
from torch import Tensor, nn

from headstart.backbones.contract import Backbone
from headstart.data.input_spec import InputSpec
from headstart.store.entry import FORMAT
from headstart.system.digests import digest

PREPROCESSING = 1
"""Raised when the deterministic preprocessing gives other pixels than before."""

_PACKAGES = ("torch", "torchvision", "timm", "pillow")


@dataclass(frozen=True)
class Arithmetic:
    """How a run computes: the same weights and images give other bits elsewhere.

    Attributes:
        precision: Lightning's name (``bf16-mixed``).
        device: type of device (``cpu``, ``cuda``).
        channels_last: memory layout of images and convolutions.
        dtype: ``run`` keeps activations as they are computed, ``half`` stores 32-bit ones in 16.
    """

    precision: str
    device: str
    channels_last: bool
    dtype: str = "run"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = {"precision": self.precision, "device": self.device, "dtype": self.dtype}
        tf32 = torch.get_float32_matmul_precision() if self.device == "cuda" else "highest"
        return {**values, "channels_last": self.channels_last, "float32_matmul": tf32}


def prefix_tensors(backbone: Backbone, stages: int) -> dict[str, Tensor]:
    """Parameters and buffers that the first ``stages`` stages may use: all that no later stage owns."""
    later = {name for stage in backbone.stages[stages:] for name in (*stage.parameters, *stage.buffers)}
    tensors: dict[str, Tensor] = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    return {name: tensor.detach() for name, tensor in tensors.items() if name not in later}


def describe_prefix(backbone: Backbone, stages: int, pool: nn.Module | None) -> dict[str, Any]:
    """The frozen prefix: the network's structure, how much of it, and the content of its tensors."""
    return {
        "class": f"{type(backbone).__module__}.{type(backbone).__qualname__}",
        "name": backbone.name,
        "structure": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(backbone)),
        "stages": [stage.name for stage in backbone.stages[:stages]],
        "of": len(backbone.stages),
        "pool": None if pool is None else f"{type(pool).__qualname__} {pool!r} {vars_of(pool)}",
        "tensors": digest(prefix_tensors(backbone, stages)),
        **({} if backbone.gathered is None else {"gathered": repr(backbone.gathered)}),
    }


def vars_of(module: nn.Module) -> dict[str, Any]:
    """A module's own plain attributes."""
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and isinstance(value, str | int | float | bool | tuple) and name != "training"
    }


def describe_images(spec: InputSpec, view: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Preprocessing: deterministic, or one augmented view with its settings, seed and number."""
    return {"spec": spec.as_dict(), "preprocessing": PREPROCESSING, "view": None if view is None else dict(view)}


def versions() -> dict[str, str]:
    """Of what decodes the images and computes the activations."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    decoder = features.version("libjpeg_turbo") or features.version("jpg")
    return {**found, "jpeg": str(decoder)}


def pixels_key(spec: InputSpec, digests: Sequence[str], *, with_aspect: bool = False) -> str:
    """The key of one split's decoded images: size, resizing, content and the libraries that decode.

    Mean and standard deviation are applied later.

    Args:
        spec: how they are resized.
        digests: of the images' contents, in the order of the split.
        with_aspect: each row ends with the image's original aspect ratio.
    """
    shape = {name: value for name, value in spec.as_dict().items() if name != "std"}
    if spec.crop_mode != "border":  # which pads with the mean
        del shape["mean"]
    found = {name: version for name, version in versions().items() if name not in {"torch", "timm"}}
    return digest(
        {
            "format": FORMAT,
            "pixels": shape,
            "with_aspect": with_aspect,
            "preprocessing": PREPROCESSING,
            "versions": found,
            "split": digest(list(digests)),
        }
    )[:40]


def activations_key(
    prefix: Mapping[str, Any], images: Mapping[str, Any], arithmetic: Arithmetic, digests: Sequence[str]
) -> str:
    """The key of one split's activations.

    Args:
        prefix: of :func:`describe_prefix`.
        images: of :func:`describe_images`.
        arithmetic: of the run.
        digests: of the images' contents, in the order of the split.
    """
    return digest({**_made_by(prefix, images, arithmetic), "split": digest(list(digests))})[:40]


def recipe(prefix: Mapping[str, Any], images: Mapping[str, Any], arithmetic: Arithmetic) -> str:
    """What an image's activations depend on besides the image: alike in entries of one network and preprocessing.

    Args:
        prefix: of :func:`describe_prefix`.
        images: of :func:`describe_images`.
        arithmetic: of the run.
    """
    return digest(_made_by(prefix, images, arithmetic))[:40]


def _made_by(prefix: Mapping[str, Any], images: Mapping[str, Any], arithmetic: Arithmetic) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "prefix": prefix,
        "images": images,
        "arithmetic": arithmetic.as_dict(),
        "versions": versions(),
    }
