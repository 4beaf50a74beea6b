"""Feature extraction: the pretrained backbone stays as it is and only a new head learns."""

from dataclasses import dataclass

from headstart.strategies.contract import ModelInfo, Phase, Strategy, one_phase, stage_group


@dataclass(frozen=True)
class Freeze(Strategy):
    """The whole backbone is frozen, BatchNorm statistics included; the head learns.

    Reference: Razavian et al., "CNN Features off-the-shelf: an Astounding Baseline for Recognition", CVPR-W 2014.
    """

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase in which the head learns."""
        return one_phase("head", [stage_group(model.head)], max_epochs)
