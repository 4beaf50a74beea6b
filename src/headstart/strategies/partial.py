"""Fine-tune some of the stages and keep the others."""

from dataclasses import dataclass
from typing import Literal

from headstart.errors import ConfigError
from headstart.model.description import ModelInfo, StageInfo
from headstart.model.phases import Phase, one_phase, stage_group
from headstart.strategies.contract import RateMultiple, Strategy


@dataclass(frozen=True)
class Partial(Strategy):
    """Train ``k`` neighbouring stages of the backbone, the last ones unless told otherwise, and the head.

    Training the first or a middle block instead is surgical fine-tuning: which block to tune depends on how
    the target differs from the source (input-level shifts: first; output-level shifts: last).

    References: Yosinski et al., NeurIPS 2014; Lee et al., "Surgical Fine-Tuning Improves Adaptation to
    Distribution Shifts", ICLR 2023.

    Attributes:
        k: number of stages. A final stage that is only a normalisation comes along uncounted.
        where: which ``k`` stages: the ``first``, ``middle`` or ``last`` ones.
        stages: exact names instead of ``k`` and ``where`` (the audit's table lists them).
        backbone_lr_mult: their rate as a multiple of the head's.
    """

    k: int = 1
    where: Literal["first", "middle", "last"] = "last"
    stages: tuple[str, ...] = ()
    backbone_lr_mult: RateMultiple = 1.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase in which the chosen stages and the head learn."""
        chosen = self._named(model) if self.stages else self._counted(model)
        groups = [
            stage_group(stage, lr_mult=self.backbone_lr_mult) for stage in model.backbone_stages if stage in chosen
        ]
        return one_phase("partial", [*groups, stage_group(model.head)], max_epochs)

    def _named(self, model: ModelInfo) -> list[StageInfo]:
        by_name = {stage.name: stage for stage in model.backbone_stages}
        if unknown := [name for name in self.stages if name not in by_name]:
            raise ConfigError(f"strategy.stages={unknown[0]} is no stage of this backbone; it has {', '.join(by_name)}")
        return [by_name[name] for name in self.stages]

    def _counted(self, model: ModelInfo) -> list[StageInfo]:
        blocks = [s for s in model.backbone_stages if s.parameters and not _only_norm(s)]
        if not 1 <= self.k <= len(blocks):
            raise ConfigError(
                f"strategy.k={self.k} is not between 1 and {len(blocks)}, the backbone's number of stages"
            )
        first = {"first": 0, "middle": (len(blocks) - self.k) // 2, "last": len(blocks) - self.k}[self.where]
        chosen = blocks[first : first + self.k]
        if self.where == "last":
            chosen += [stage for stage in model.backbone_stages if stage.parameters and _only_norm(stage)]
        return chosen


def _only_norm(stage: StageInfo) -> bool:
    return all(parameter.role == "norm" for parameter in stage.parameters)
