"""Feature extraction: the pretrained backbone stays as it is and only a new head learns."""

from dataclasses import dataclass

from headstart.model.description import ModelInfo
from headstart.model.phases import Phase, one_phase, stage_group
from headstart.strategies.contract import RateMultiple, Strategy


@dataclass(frozen=True)
class Freeze(Strategy):
    """The whole backbone is frozen, BatchNorm statistics included; the head learns.

    Reference: Razavian et al., "CNN Features off-the-shelf: an Astounding Baseline for Recognition", CVPR-W 2014.

    Attributes:
        lr_mult: the head's rate as a multiple of ``optimizer.lr``. A head alone, started from nothing on features
            that stay, wants a rate that would ruin a backbone; at fine-tuning's rate it stays undertrained and the
            comparison with fine-tuning is unfair.
    """

    only_head_learns = True
    lr_mult: RateMultiple = 10.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase in which the head learns."""
        return one_phase("head", [stage_group(model.head, lr_mult=self.lr_mult)], max_epochs)
