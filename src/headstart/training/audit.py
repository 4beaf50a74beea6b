"""The audit: a table of what will learn, before training, and the proof of what did, after it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.table import Column, Table
from torch import Tensor

from headstart.errors import AuditError
from headstart.model.description import ModelInfo
from headstart.model.modes import BatchNormMode, apply_modes, moving_buffers, named_state
from headstart.model.phases import Phase
from headstart.model.transfer_model import TransferModel
from headstart.system.console import number, plain_table
from headstart.system.digests import digest
from headstart.training.rates import RatePlan


@dataclass(frozen=True)
class StageRow:
    """One line of the audit's table.

    Attributes:
        stage: name of the stage, or ``head``.
        parameters: number of parameters.
        trainable: of these, how many learn in the phase.
        lr: lowest and highest effective peak rate in the phase (schedule factor 1); None where nothing learns by steps.
        mode: ``train`` if any module of the stage is in training mode, else ``eval``.
    """

    stage: str
    parameters: int
    trainable: int
    lr: tuple[float, float] | None
    mode: str


def stage_rows(
    model: TransferModel, info: ModelInfo, plan: RatePlan, phase_index: int, *, batchnorm: BatchNormMode = "train"
) -> list[StageRow]:
    """The table of one phase, whose modes the model is put into."""
    apply_modes(model, plan.phases[phase_index], batchnorm=batchnorm)
    rates = {name: plan.base_lr * group.multipliers[phase_index] for group in plan.groups for name in group.parameters}
    learning = plan.phases[phase_index].learning
    modules = dict(model.named_modules())
    owned = {stage.name: [f"backbone.{name}" for name in stage.modules] for stage in model.backbone.stages}
    owned["head"] = [
        f"{prefix}.{name}" if name else prefix
        for prefix, head in model.heads.items()
        for name, _ in head.named_modules()
    ]
    rows = []
    for stage in info.stages:
        active = [parameter for parameter in stage.parameters if parameter.name in learning]
        lrs = [rates[parameter.name] for parameter in active]
        training = any(modules[name].training for name in owned.get(stage.name, ()))
        rows.append(
            StageRow(
                stage=stage.name,
                parameters=sum(parameter.size for parameter in stage.parameters),
                trainable=sum(parameter.size for parameter in active),
                lr=(min(lrs), max(lrs)) if any(lrs) else None,
                mode="train" if training else "eval",
            )
        )
    return rows


def audit_table(rows: Sequence[StageRow], *, title: str = "") -> Table:
    """What will learn, a stage a line: parameters, how many learn, effective learning rate, mode."""
    stage, mode = (Column(name, no_wrap=True) for name in ("stage", "mode"))
    table = plain_table(title, stage, *map(number, ("parameters", "trainable", "learning rate")), mode)
    for row in rows:
        trainable = f"{row.trainable:,}" if row.trainable else "frozen"
        style = "" if row.trainable else "dim"
        table.add_row(row.stage, f"{row.parameters:,}", trainable, _rates(row.lr), row.mode, style=style)
    table.add_section()
    parameters, learning = sum(row.parameters for row in rows), sum(row.trainable for row in rows)
    table.add_row("all", f"{parameters:,}", f"{learning:,}", "", "", style="bold")
    return table


@dataclass
class Audit:
    """Follows one training and proves its outcome.

    Attributes:
        model: as it is trained, unwrapped.
        info: its description.
        initial: every parameter and buffer before training, by name, on the CPU.
        received: trainable parameters that got a gradient in some step, or that were solved for.
        violations: what was found wrong; any fails the run.
        statistics: how many numbers of buffers (BatchNorm's running means and variances) training moved.
    """

    model: TransferModel
    info: ModelInfo
    ever_learning: frozenset[str]
    initial: dict[str, Tensor] = field(default_factory=dict)
    received: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    statistics: int = 0
    _phase: str = ""
    _still: frozenset[str] = frozenset()
    _before: dict[str, Tensor] = field(default_factory=dict)
    _waiting: dict[str, torch.nn.Parameter] = field(default_factory=dict)

    def start(self) -> None:
        """Remember the state before training."""
        self.initial = {name: tensor.detach().cpu().clone() for name, tensor in named_state(self.model).items()}

    def start_phase(self, name: str, learning: frozenset[str]) -> None:
        """Remember what must stand still in this phase; call it once the modes are set."""
        state = named_state(self.model)
        moving = learning | moving_buffers(self.model)
        self._phase = name
        self._still = frozenset(state) - moving
        self._before = {key: self._copy(key, state[key].detach().cpu()) for key in self._still}
        parameters = dict(self.model.named_parameters())
        self._waiting = {key: parameters[key] for key in sorted(learning - self.received)}

    def see_gradients(self) -> None:
        """Note which parameters have a gradient; free once all have had one."""
        if self._waiting:
            seen = {name for name, parameter in self._waiting.items() if parameter.grad is not None}
            self.received |= seen
            for name in seen:
                del self._waiting[name]

    def see_solution(self) -> None:
        """Note that everything that was still to learn has been solved for, without gradients."""
        self.received |= set(self._waiting)
        self._waiting = {}

    def end_phase(self) -> None:
        """Compare what had to stand still with what it was at the start of the phase."""
        state = named_state(self.model)
        moved = [key for key, tensor in self._before.items() if not _identical(state[key].detach().cpu(), tensor)]
        self.violations += [f"frozen {key} changed in phase '{self._phase}'" for key in sorted(moved)]
        self._before = {}

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        # What has not moved since the start of training is kept once.
        first = self.initial.get(name)
        return first if first is not None and _identical(first, tensor) else tensor.clone()

    def finish(self) -> dict[str, Any]:
        """The outcome for ``audit.json``: drift of each stage, and whether every promise was kept."""
        state = {name: tensor.detach().cpu() for name, tensor in named_state(self.model).items()}
        parameters = dict(self.model.named_parameters())
        still = sorted(frozenset(self.initial) - self.ever_learning)
        changed = [name for name in still if not _identical(state[name], self.initial[name])]
        self.violations += [f"frozen parameter {name} changed" for name in changed if name in parameters]
        statistics = [state[name] for name in changed if name not in parameters]
        self.statistics = sum(tensor.numel() for tensor in statistics if tensor.is_floating_point())
        for name in sorted(self.ever_learning - self.received):
            self.violations.append(f"trainable parameter {name} never received a gradient")
        unmoved = [n for n in sorted(self.ever_learning & self.received) if _identical(state[n], self.initial[n])]
        return {
            "ok": not self.violations,
            "violations": self.violations,
            "unmoved": unmoved,
            "stages": [self._stage(stage.name, state) for stage in self.info.stages],
        }

    def _stage(self, name: str, state: dict[str, Tensor]) -> dict[str, Any]:
        stage = next(stage for stage in self.info.stages if stage.name == name)
        names = [parameter.name for parameter in stage.parameters]
        drift = sum(float((state[n].double() - self.initial[n].double()).square().sum()) for n in names)
        norm = sum(float(self.initial[n].double().square().sum()) for n in names)
        buffers = self._buffers(name)
        changed = [n for n in [*names, *buffers] if not _identical(state[n], self.initial[n])]
        before = digest({n: self.initial[n] for n in [*names, *buffers]})
        return {
            "name": name,
            "parameters": sum(parameter.size for parameter in stage.parameters),
            "trainable": sum(p.size for p in stage.parameters if p.name in self.ever_learning),
            "drift": drift**0.5,
            "drift_relative": (drift / norm) ** 0.5 if norm > 0 else None,
            "changed_tensors": len(changed),
            "tensors": len(names) + len(buffers),
            "digest_before": before,
            "digest_after": digest({n: state[n] for n in [*names, *buffers]}) if changed else before,
        }

    def _buffers(self, stage: str) -> list[str]:
        if stage == "head":
            heads = self.model.heads.items()
            return [f"{prefix}.{name}" for prefix, head in heads for name, _ in head.named_buffers()]
        own = next(s for s in self.model.backbone.stages if s.name == stage)
        return [f"backbone.{name}" for name in own.buffers]


def raise_violations(outcome: dict[str, Any]) -> None:
    """Fail the run if the audit found anything.

    Raises:
        AuditError: with the first findings.
    """
    if not outcome["ok"]:
        shown = "; ".join(outcome["violations"][:5])
        more = len(outcome["violations"]) - 5
        raise AuditError(f"the audit failed: {shown}" + (f"; and {more} more" if more > 0 else ""))


def static_names(audit: Audit, phases: Sequence[Phase], *, batchnorm: BatchNormMode = "train") -> frozenset[str]:
    """Names of the parameters and buffers that no phase changes."""
    moving = set(audit.ever_learning)
    for phase in phases:
        apply_modes(audit.model, phase, batchnorm=batchnorm)
        moving |= moving_buffers(audit.model)
    return frozenset(named_state(audit.model)) - moving


def _rates(lr: tuple[float, float] | None) -> str:
    if lr is None:
        return "-"
    low, high = lr
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _identical(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b) if not a.is_floating_point() else _same_bits(a, b)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    # NaN differs from itself; a frozen NaN is still unmoved.
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
