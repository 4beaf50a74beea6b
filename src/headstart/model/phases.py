"""Phases: which parameters learn in which epochs, and how fast. No torch here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headstart.model.description import ModelInfo, ParameterInfo, StageInfo


@dataclass(frozen=True)
class Group:
    """Named parameters that learn at one rate.

    Attributes:
        name: unique within the phase; as a rule the stage's name.
        parameters: full parameter names.
        lr_mult: the group's rate is ``optimizer.lr`` times the schedule's factor times this.
        decays: False where a penalty of the strategy's own takes the place of weight decay.
    """

    name: str
    parameters: tuple[str, ...]
    lr_mult: float = 1.0
    decays: bool = True


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs in which one set of parameters learns.

    Attributes:
        name: for tables and plots.
        start_epoch: the first epoch.
        end_epoch: the epoch after the last one.
        groups: what learns; a parameter in no group is frozen.
        needs_images: why this phase cannot run on stored activations, or None where it can.
        restarts_schedule: the learning-rate schedule starts over with this phase and ends with it.
    """

    name: str
    start_epoch: int
    end_epoch: int
    groups: tuple[Group, ...]
    needs_images: str | None = None
    restarts_schedule: bool = False

    @property
    def learning(self) -> frozenset[str]:
        """Names of all parameters that learn in this phase."""
        return frozenset(name for group in self.groups for name in group.parameters)

    def frozen_stages(self, model: ModelInfo) -> int:
        """Length of the frozen prefix: how many backbone stages, from the input on, hold nothing that learns."""
        learning = self.learning
        for count, stage in enumerate(model.backbone_stages):
            if any(parameter.name in learning for parameter in stage.parameters):
                return count
        return len(model.backbone_stages)


def stage_group(
    stage: StageInfo,
    *,
    lr_mult: float = 1.0,
    decays: bool = True,
    keep: Callable[[ParameterInfo], bool] | None = None,
) -> Group:
    """All of a stage's parameters, or those that ``keep`` accepts, as one group named like the stage."""
    return Group(stage.name, tuple(p.name for p in stage.parameters if keep is None or keep(p)), lr_mult, decays)


def one_phase(
    name: str, groups: Iterable[Group], max_epochs: int, *, needs_images: str | None = None
) -> tuple[Phase, ...]:
    """One phase over the whole training, without empty groups."""
    return (Phase(name, 0, max_epochs, tuple(g for g in groups if g.parameters), needs_images=needs_images),)
