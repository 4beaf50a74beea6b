"""Train one kind of parameter throughout the backbone, and the head."""

from collections.abc import Callable
from dataclasses import dataclass

from headstart.errors import ConfigError
from headstart.strategies.contract import ModelInfo, ParameterInfo, Phase, Strategy, one_phase, stage_group


@dataclass(frozen=True)
class NormOnly(Strategy):
    """Only the scales and shifts of normalisation layers learn, with their statistics, and the head.

    Reference: Frankle et al., "Training BatchNorm and Only BatchNorm", ICLR 2021.

    Attributes:
        backbone_lr_mult: their rate as a multiple of the head's.
    """

    backbone_lr_mult: float = 1.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase."""
        return _selected(model, max_epochs, "norm_only", lambda p: p.role == "norm", self.backbone_lr_mult)


@dataclass(frozen=True)
class BitFit(Strategy):
    """Only biases learn, those of normalisation layers included, and the head.

    Reference: Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
    Language-models", ACL 2022.

    Attributes:
        backbone_lr_mult: their rate as a multiple of the head's.
    """

    backbone_lr_mult: float = 1.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase."""
        return _selected(model, max_epochs, "bitfit", lambda p: p.name.endswith("bias"), self.backbone_lr_mult)


def _selected(
    model: ModelInfo, max_epochs: int, strategy: str, keep: Callable[[ParameterInfo], bool], lr_mult: float
) -> tuple[Phase, ...]:
    groups = [stage_group(stage, lr_mult=lr_mult, keep=keep) for stage in model.backbone_stages]
    if not any(group.parameters for group in groups):
        raise ConfigError(f"strategy={strategy} finds nothing to train in this backbone; choose partial, lora or full")
    return one_phase(strategy, [*groups, stage_group(model.head)], max_epochs)
