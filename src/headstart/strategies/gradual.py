"""Unfreeze from the head down, on a schedule."""

from dataclasses import dataclass
from typing import Annotated

from headstart.errors import ConfigError
from headstart.model.description import ModelInfo
from headstart.model.phases import Phase, stage_group
from headstart.strategies.contract import RateMultiple, Strategy
from headstart.system.options import Above, AtMost, Positive


@dataclass(frozen=True)
class Gradual(Strategy):
    """Gradual unfreezing: the head alone first, then one stage more at a time, the last stage first.

    The unfreezing is spread evenly, so that it fits any depth: everything learns from epoch
    ``full_by * trainer.max_epochs`` on. Several stages join at once where there are more stages than epochs.

    Reference: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification" (ULMFiT), ACL
    2018, section 3.3; ``lr_decay`` is their discriminative fine-tuning (eq. 2, where they divide by 2.6 a layer).

    Attributes:
        head_epochs: epochs in which only the head learns.
        full_by: share of training after which everything learns, above 0, at most 1.
        lr_decay: each stage's rate as a multiple of that of the stage above it.
    """

    head_epochs: Positive = 1
    full_by: Annotated[float, Above(0), AtMost(1)] = 0.5
    lr_decay: RateMultiple = 1.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase for the head, then one for each epoch at which stages join."""
        stages = [stage for stage in reversed(model.backbone_stages) if stage.parameters]
        full_epoch = max(self.head_epochs, min(round(self.full_by * max_epochs), max_epochs - 1))
        if self.head_epochs < 1 or full_epoch >= max_epochs:
            raise ConfigError(
                f"strategy.head_epochs={self.head_epochs} must be at least 1 and leave an epoch of "
                f"trainer.max_epochs={max_epochs} for the backbone; lower it or train longer"
            )
        steps = max(len(stages) - 1, 1)
        joins = [self.head_epochs + (i * (full_epoch - self.head_epochs)) // steps for i in range(len(stages))]
        groups = [stage_group(stage, lr_mult=self.lr_decay ** (i + 1)) for i, stage in enumerate(stages)]
        starts = [0, *sorted(set(joins))]
        ends = [*starts[1:], max_epochs]
        phases = []
        for start, end in zip(starts, ends, strict=True):
            learning = [group for group, join in zip(groups, joins, strict=True) if join <= start and start > 0]
            name = f"from {learning[-1].name}" if learning else "head"
            phases.append(Phase(name, start, end, (*reversed(learning), stage_group(model.head))))
        return tuple(phases)
