"""Parameter groups and learning rates.

The optimizer holds, from the start, every parameter that learns in any phase and no other. A group's rate is
a pure function of the position in training, ``base rate x schedule factor x the phase's multiplier``, so that a
resumed run has the rates of an uninterrupted one. Only the plateau schedule has a state; it is checkpointed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from headstart.errors import ConfigError
from headstart.model.description import ModelInfo
from headstart.model.phases import Phase


@dataclass(frozen=True)
class OptimizerGroup:
    """Parameters that share a rate in every phase and a weight decay.

    Attributes:
        name: the strategy's group name, with ``/no_decay`` where weight decay does not apply: to biases, norms,
            class tokens, and under a penalty of the strategy's own.
        parameters: full parameter names.
        decays: whether weight decay applies.
        multipliers: one rate multiplier a phase; 0 where the group does not learn.
    """

    name: str
    parameters: tuple[str, ...]
    decays: bool
    multipliers: tuple[float, ...]


@dataclass(frozen=True)
class Schedule:
    """The learning rate's factor over training, between 0 and 1.

    Attributes:
        name: ``none``, ``cosine`` (Loshchilov and Hutter, SGDR, ICLR 2017, eq. 5, without restarts), ``step``
            (times ``gamma`` every ``step_epochs``) or ``plateau`` (times ``gamma`` after ``patience`` epochs
            without a better validation metric).
        warmup_epochs: the factor rises linearly to 1 over these epochs; fractions are allowed.
        min_factor: where cosine ends and plateau stops.
        step_epochs: see ``step``.
        gamma: see ``step`` and ``plateau``.
        patience: see ``plateau``; in epochs.
    """

    name: Literal["none", "cosine", "step", "plateau"] = "none"
    warmup_epochs: float = 0.0
    min_factor: float = 0.0
    step_epochs: int = 10
    gamma: float = 0.1
    patience: int = 3

    def factor(self, epoch: float, *, start: float, end: float) -> float:
        """The factor at a position in epochs within a span that starts at ``start`` and ends at ``end``.

        ``plateau``'s own factor comes from the validation metric and is applied by the module.
        """
        passed, length = epoch - start, end - start
        if passed < self.warmup_epochs:
            # Never exactly 0: the first step would do nothing.
            return max(passed / self.warmup_epochs, 1e-3)
        if self.name == "cosine":
            progress = (passed - self.warmup_epochs) / max(length - self.warmup_epochs, 1e-12)
            return self.min_factor + (1 - self.min_factor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        if self.name == "step":
            return self.gamma ** int((passed - self.warmup_epochs) // self.step_epochs)
        return 1.0


@dataclass(frozen=True)
class RatePlan:
    """Effective learning rates of every optimizer group at any position in training.

    Attributes:
        base_lr: ``optimizer.lr``.
        phases: of the strategy.
        groups: in the optimizer's order.
        schedule: its span is the phase where the phase restarts it, else from the last restart on.
    """

    base_lr: float
    phases: tuple[Phase, ...]
    groups: tuple[OptimizerGroup, ...]
    schedule: Schedule

    def phase_index(self, epoch: float) -> int:
        """Index of the phase that holds ``epoch``; past the end, the last one."""
        for index, phase in enumerate(self.phases):
            if epoch < phase.end_epoch:
                return index
        return len(self.phases) - 1

    def rates(self, epoch: float, *, plateau: float = 1.0) -> list[float]:
        """The rate of each group at ``epoch`` (a float: 1.5 is half-way through the second epoch)."""
        index = self.phase_index(epoch)
        start, end = self.span(index)
        factor = self.schedule.factor(epoch, start=start, end=end) * plateau
        return [self.base_lr * factor * group.multipliers[index] for group in self.groups]

    def span(self, index: int) -> tuple[float, float]:
        """Epochs over which the schedule of a phase runs, that of earlier and later ones included where it goes on."""
        first = max((i for i in range(index + 1) if self.phases[i].restarts_schedule), default=0)
        later = (i for i in range(index + 1, len(self.phases)) if self.phases[i].restarts_schedule)
        end = next(later, len(self.phases))
        return self.phases[first].start_epoch, self.phases[end - 1].end_epoch


def check_phases(phases: Sequence[Phase], model: ModelInfo, *, max_epochs: int) -> None:
    """Phases must cover all epochs in order, learn something, and name every parameter at most once.

    Raises:
        ConfigError: with the phase and what is wrong with it.
    """
    known = {parameter.name for stage in model.stages for parameter in stage.parameters}
    epoch = 0
    for phase in phases:
        if phase.start_epoch != epoch or phase.end_epoch <= phase.start_epoch:
            raise ConfigError(
                f"strategy phase '{phase.name}' covers epochs {phase.start_epoch} to {phase.end_epoch}, but must start "
                f"at {epoch} and last at least one epoch; trainer.max_epochs={max_epochs} may be too small"
            )
        epoch = phase.end_epoch
        names = [name for group in phase.groups for name in group.parameters]
        if not names:
            raise ConfigError(f"strategy phase '{phase.name}' trains nothing; choose parameters that this model has")
        if len(names) != len(set(names)):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(f"strategy phase '{phase.name}' puts {twice[0]} into two groups; each may be in one")
        if unknown := sorted(set(names) - known):
            raise ConfigError(f"strategy phase '{phase.name}' names {unknown[0]}, which the model does not have")
    if epoch != max_epochs:
        raise ConfigError(f"the strategy's phases end at epoch {epoch}, not at trainer.max_epochs={max_epochs}")


def check_warmup(plan: RatePlan) -> None:
    """The warm-up ends within each stretch of epochs for which the schedule starts over.

    Raises:
        ConfigError: one is shorter, and would end before its rates have been reached.
    """
    warmup = plan.schedule.warmup_epochs
    for index, phase in enumerate(plan.phases):
        start, end = plan.span(index)
        if warmup > end - start:
            raise ConfigError(
                f"scheduler.warmup_epochs={warmup:g} exceeds the {end - start:g} epochs from the start of phase "
                f"'{phase.name}' to where the schedule starts over; lower it, or make the phase longer"
            )


def optimizer_groups(phases: Sequence[Phase], model: ModelInfo) -> tuple[OptimizerGroup, ...]:
    """Groups of all parameters that ever learn: those with the same rates in all phases and the same decay."""
    decays = {parameter.name: parameter.decays for stage in model.stages for parameter in stage.parameters}
    where = [{name: group for group in phase.groups for name in group.parameters} for phase in phases]
    members: dict[tuple[str, bool, tuple[float, ...]], list[str]] = {}
    for name, decay in decays.items():
        groups = [by_name.get(name) for by_name in where]
        last = next((group for group in reversed(groups) if group), None)
        if last is not None:
            multipliers = tuple(group.lr_mult if group else 0.0 for group in groups)
            members.setdefault((last.name, decay and last.decays, multipliers), []).append(name)
    return tuple(
        OptimizerGroup(name if decay else f"{name}/no_decay", tuple(names), decay, multipliers)
        for (name, decay, multipliers), names in members.items()
    )


def torch_groups(groups: Sequence[OptimizerGroup], model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """The groups as a torch optimizer takes them; each carries its name."""
    parameters = dict(model.named_parameters())
    return [
        {
            "params": [parameters[name] for name in group.parameters],
            "name": group.name,
            "weight_decay": weight_decay if group.decays else 0.0,
        }
        for group in groups
    ]


def build_plateau(schedule: Schedule, mode: Literal["min", "max"]) -> ReduceLROnPlateau | None:
    """What follows the validation metric of a run, where its schedule does; its rate is a factor."""
    if schedule.name != "plateau":
        return None
    factor_only = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    return ReduceLROnPlateau(
        factor_only, mode=mode, factor=schedule.gamma, patience=schedule.patience, min_lr=schedule.min_factor
    )


def restore_plateau(plateau: ReduceLROnPlateau, state: dict[str, Any]) -> None:
    """Go on from a state of torch's, which leaves out the rate that the optimizer has by then: here, the factor."""
    plateau.load_state_dict(state)
    plateau.optimizer.param_groups[0]["lr"] = plateau.get_last_lr()[0]


def plateau_factor(plateau: ReduceLROnPlateau | None) -> float:
    """The present factor of the rate; 1 without a plateau schedule."""
    return 1.0 if plateau is None else float(plateau.optimizer.param_groups[0]["lr"])
