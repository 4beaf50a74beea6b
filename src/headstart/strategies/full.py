"""Everything learns: fine-tuning from the weights, or training from random ones."""

from dataclasses import dataclass

from headstart.model.description import ModelInfo
from headstart.model.phases import Phase, all_learn
from headstart.strategies.contract import BackboneRate, Strategy


@dataclass(frozen=True)
class Full(Strategy):
    """Fine-tune every parameter.

    Reference: Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014.

    Attributes:
        backbone_lr_mult: the backbone's rate as a multiple of the head's; above 0.
    """

    backbone_lr_mult: BackboneRate = 1.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase in which everything learns."""
        return all_learn(model, max_epochs, backbone_lr_mult=self.backbone_lr_mult)


@dataclass(frozen=True)
class Scratch(Full):
    """Train the same network from random weights: the baseline that defines transfer gain.

    The input specification of the weights that it replaces is kept, so that only the weights differ.

    Reference: He et al., "Rethinking ImageNet Pre-training", ICCV 2019.
    """

    starts_from_random_weights = True
