"""Fine-tune everything, lower layers more slowly."""

from dataclasses import dataclass
from typing import Annotated

from headstart.model.description import ModelInfo
from headstart.model.phases import Phase, one_phase, stage_group
from headstart.strategies.contract import Strategy
from headstart.system.options import Above, AtMost


@dataclass(frozen=True)
class Layerwise(Strategy):
    """Layer-wise learning-rate decay: stage ``i`` of ``n`` learns at ``decay ** (n - i)`` times the head's rate.

    The multipliers are part of the rate plan, so the rates differ under every schedule and are the ones that
    the audit states.

    References: Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022, appendix.

    Attributes:
        decay: ratio of the rates of neighbouring stages, above 0, at most 1.
    """

    decay: Annotated[float, Above(0), AtMost(1)] = 0.75

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase in which everything learns."""
        stages = model.backbone_stages
        groups = [stage_group(s, lr_mult=self.decay ** (len(stages) - i)) for i, s in enumerate(stages)]
        return one_phase("all", [*groups, stage_group(model.head)], max_epochs)
