"""Linear probing, then fine-tuning."""

from dataclasses import dataclass

from headstart.errors import ConfigError
from headstart.model.description import ModelInfo
from headstart.model.phases import Group, Phase, stage_group
from headstart.strategies.contract import RateMultiple, Strategy
from headstart.system.options import Positive


@dataclass(frozen=True)
class LpFt(Strategy):
    """Train the head on the frozen backbone first, then everything, each phase with a schedule of its own.

    A head that already fits keeps the first steps of fine-tuning from distorting the pretrained features. So that it
    goes on fitting, BatchNorm layers stay as they are (``batchnorm=auto``).

    Reference: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    ICLR 2022.

    Attributes:
        probe_epochs: epochs of the first phase; None is half of them.
        probe_lr_mult: the head's rate in the first phase as a multiple of ``optimizer.lr``; see ``strategy=freeze``.
        finetune_lr_mult: rate of the second phase as a multiple of ``optimizer.lr``.
        backbone_lr_mult: the last stage's rate as a further multiple of it.
        first_stage_lr_mult: the first stage's, with the stages between spaced geometrically; None is the same
            for all (fastai's ``fine_tune`` spaces them from 1/100 to 1).
    """

    usual_batchnorm = "eval"
    probe_epochs: Positive | None = None
    probe_lr_mult: RateMultiple = 10.0
    finetune_lr_mult: RateMultiple = 0.3
    backbone_lr_mult: RateMultiple = 1.0
    first_stage_lr_mult: RateMultiple | None = None

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """The probe, then the fine-tuning."""
        probe = max_epochs // 2 if self.probe_epochs is None else self.probe_epochs
        if not 1 <= probe < max_epochs:
            raise ConfigError(
                f"strategy.probe_epochs={probe} must be at least 1 and below trainer.max_epochs={max_epochs}; "
                "train longer or choose strategy=freeze or strategy=full"
            )
        tuned = stage_group(model.head, lr_mult=self.finetune_lr_mult)
        return (
            Phase("probe", 0, probe, (stage_group(model.head, lr_mult=self.probe_lr_mult),)),
            Phase("finetune", probe, max_epochs, (*self._backbone(model), tuned), restarts_schedule=True),
        )

    def _backbone(self, model: ModelInfo) -> list[Group]:
        stages = [stage for stage in model.backbone_stages if stage.parameters]
        first = self.backbone_lr_mult if self.first_stage_lr_mult is None else self.first_stage_lr_mult
        ratio = self.backbone_lr_mult / first
        steps = max(len(stages) - 1, 1)
        return [
            stage_group(stage, lr_mult=self.finetune_lr_mult * first * ratio ** (i / steps))
            for i, stage in enumerate(stages)
        ]
