"""Train one kind of parameter throughout the backbone, and the head."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from headstart.errors import ConfigError
from headstart.model.description import ModelInfo, ParameterInfo
from headstart.model.phases import Phase, one_phase, stage_group
from headstart.strategies.contract import RateMultiple, Strategy


@dataclass(frozen=True)
class Selected(Strategy):
    """Of the backbone one kind of parameter learns, and the head.

    Attributes:
        lr_mult: the rate of all that learns as a multiple of ``optimizer.lr``: so few parameters want a rate that
            would ruin a whole backbone, as the head of ``strategy=freeze`` does.
        backbone_lr_mult: the backbone's rate as a further multiple.
        phase_name: of its one phase, and of the strategy.
    """

    phase_name: ClassVar[str]
    lr_mult: RateMultiple = 10.0
    backbone_lr_mult: RateMultiple = 1.0

    @abstractmethod
    def learns(self, parameter: ParameterInfo) -> bool:
        """Whether a parameter of the backbone learns."""

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase."""
        rate = self.lr_mult * self.backbone_lr_mult
        groups = [stage_group(stage, lr_mult=rate, keep=self.learns) for stage in model.backbone_stages]
        if not any(group.parameters for group in groups):
            raise ConfigError(
                f"strategy={self.phase_name} finds nothing to train in this backbone; choose partial, lora or full"
            )
        return one_phase(self.phase_name, [*groups, stage_group(model.head, lr_mult=self.lr_mult)], max_epochs)


@dataclass(frozen=True)
class NormOnly(Selected):
    """Only the scales and shifts of normalisation layers learn, with their statistics, and the head.

    Reference: Frankle et al., "Training BatchNorm and Only BatchNorm", ICLR 2021.
    """

    phase_name = "norm_only"

    def learns(self, parameter: ParameterInfo) -> bool:
        """Those of normalisation layers."""
        return parameter.role == "norm"


@dataclass(frozen=True)
class BitFit(Selected):
    """Only biases learn, those of normalisation layers included, and the head.

    Reference: Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
    Language-models", ACL 2022.
    """

    phase_name = "bitfit"

    def learns(self, parameter: ParameterInfo) -> bool:
        """Biases."""
        return parameter.name.endswith("bias")
