"""Everything learns: fine-tuning from the weights, or training from random ones."""

from dataclasses import dataclass
from typing import ClassVar

from headstart.model.description import ModelInfo
from headstart.model.phases import Phase, one_phase, stage_group
from headstart.strategies.contract import RateMultiple, Strategy


@dataclass(frozen=True)
class Full(Strategy):
    """Fine-tune every parameter; also what strategies build on that add a term to the loss or a step at the end.

    Reference: Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014.

    Attributes:
        decays: False where a penalty takes the place of weight decay.
        needs_images: why images are needed even where nothing that they pass first learns, or None.
        backbone_lr_mult: the backbone's rate as a multiple of the head's; above 0.
    """

    decays: ClassVar[bool] = True
    needs_images: ClassVar[str | None] = None
    backbone_lr_mult: RateMultiple = 1.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase in which everything learns."""
        backbone = [
            stage_group(stage, lr_mult=self.backbone_lr_mult, decays=self.decays) for stage in model.backbone_stages
        ]
        head = stage_group(model.head, decays=self.decays)
        return one_phase("all", [*backbone, head], max_epochs, needs_images=self.needs_images)


@dataclass(frozen=True)
class Scratch(Full):
    """Train the same network from random weights: the baseline that defines transfer gain.

    The input specification of the weights that it replaces is kept, so that only the weights differ.

    Reference: He et al., "Rethinking ImageNet Pre-training", ICCV 2019.
    """

    starts_from_random_weights = True
