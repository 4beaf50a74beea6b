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
        lr_mult: the rate of all that learns as a multiple of ``optimizer.lr``: so few parameters want a rate that
            would ruin a whole backbone, as the head of ``strategy=freeze`` does.
        backbone_lr_mult: the backbone's rate as a further multiple.
    """

    lr_mult: float = 10.0
    backbone_lr_mult: float = 1.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase."""
        return _selected(model, max_epochs, "norm_only", lambda p: p.role == "norm", self)


@dataclass(frozen=True)
class BitFit(Strategy):
    """Only biases learn, those of normalisation layers included, and the head.

    Reference: Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
    Language-models", ACL 2022.

    Attributes:
        lr_mult: the rate of all that learns as a multiple of ``optimizer.lr``: so few parameters want a rate that
            would ruin a whole backbone, as the head of ``strategy=freeze`` does.
        backbone_lr_mult: the backbone's rate as a further multiple.
    """

    lr_mult: float = 10.0
    backbone_lr_mult: float = 1.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase."""
        return _selected(model, max_epochs, "bitfit", lambda p: p.name.endswith("bias"), self)


def _selected(
    model: ModelInfo, max_epochs: int, name: str, keep: Callable[[ParameterInfo], bool], rates: NormOnly | BitFit
) -> tuple[Phase, ...]:
    backbone = rates.lr_mult * rates.backbone_lr_mult
    groups = [stage_group(stage, lr_mult=backbone, keep=keep) for stage in model.backbone_stages]
    if not any(group.parameters for group in groups):
        raise ConfigError(f"strategy={name} finds nothing to train in this backbone; choose partial, lora or full")
    return one_phase(name, [*groups, stage_group(model.head, lr_mult=rates.lr_mult)], max_epochs)
