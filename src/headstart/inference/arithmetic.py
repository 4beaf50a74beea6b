"""How a backbone computes outside a training, so that what trainings have stored of an image can stand for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from headstart.backbones.contract import Backbone
from headstart.data.input_spec import InputSpec
from headstart.errors import ConfigError
from headstart.heads.pool import Pool
from headstart.store.key import Arithmetic, describe_images, describe_prefix, recipe
from headstart.store.lookup import StoredRows
from headstart.training.assemble import wants_channels_last

_HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Computation:
    """Precision and memory layout of a forward pass.

    Attributes:
        precision: Lightning's name.
        channels_last: images and convolutions have this layout.
    """

    precision: str
    channels_last: bool

    @classmethod
    def of(cls, asked: str, precision: str, channels_last: bool | str, backbone: Backbone) -> "Computation":
        """32 bits, or as a run computes.

        Args:
            asked: ``32-true`` or ``run``.
            precision: of the run.
            channels_last: of the run, as its trainer was asked.
            backbone: of the run.

        Raises:
            ConfigError: the run computes in 64 bits.
        """
        if asked == PLAIN.precision:
            return PLAIN
        if precision != PLAIN.precision and precision not in _HALVES:
            raise ConfigError(f"--precision=run: the run computes in {precision}, which trainings only do; use 32-true")
        return cls(precision, wants_channels_last(channels_last, backbone))

    @property
    def suffix(self) -> str:
        """What tells features in 16 bits from others."""
        return "" if self.precision == PLAIN.precision else f" {self.precision}"

    def prepared(self, backbone: Backbone, device: torch.device) -> Callable[[Tensor], Tensor]:
        """``(B, C, H, W)`` float32 to what the backbone makes of it; the backbone is on the device."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        backbone.to(memory_format=layout)
        half = _HALVES.get(self.precision)

        def compute(images: Tensor) -> Tensor:
            with torch.autocast(device.type, half, enabled=half is not None):
                return backbone.forward_features(images.contiguous(memory_format=layout))

        return compute


PLAIN = Computation("32-true", channels_last=False)
"""As a finished model answers."""


def stored_rows(
    cache: Path | None,
    backbone: Backbone,
    pool: Pool,
    spec: InputSpec,
    computation: Computation,
    device: torch.device,
) -> StoredRows | None:
    """What is stored of the pooled features of images in this arithmetic; None where nothing is.

    In 32 bits the memory layout changes the last bits only, so that rows of either are taken.
    """
    if cache is None or not (cache / "activations").is_dir():
        return None
    prefix = describe_prefix(backbone, len(backbone.stages), pool)
    layouts = (True, False) if computation.precision == PLAIN.precision else (computation.channels_last,)
    images = describe_images(spec)
    recipes = [recipe(prefix, images, Arithmetic(computation.precision, device.type, layout)) for layout in layouts]
    found = StoredRows(cache / "activations", recipes)
    return found if len(found) else None
