"""What a job that was trained with others leaves behind: the whole run directory of a single run."""

import time
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from headstart.execution.assemble import static_folder
from headstart.execution.execute import build_result, count_parameters, phase_table, write_down
from headstart.execution.summary import data_notice
from headstart.frozen.checkpoint import Lengths, write_checkpoints
from headstart.frozen.features import Features, batches_of
from headstart.frozen.member import Member
from headstart.frozen.stack import Precision, evaluation_size
from headstart.model.description import ModelInfo
from headstart.model.modes import apply_modes
from headstart.model.transfer_model import TransferModel
from headstart.runs.result import Result, to_plain
from headstart.system.atomic import write_json
from headstart.system.console import show
from headstart.tasks import Task
from headstart.tasks.predictions import EpochOutputs, Predictions
from headstart.training.assemble import ever_learning
from headstart.training.audit import Audit, StageRow, audit_table, raise_violations, stage_rows
from headstart.training.callbacks import CostMeter, epoch_line, write_metrics
from headstart.training.checkpoints import share_static
from headstart.weights.report import weights_notice


@dataclass
class Trained:
    """A job's model with its answers; a :class:`headstart.tasks.predictions.ScoredModel`."""

    model: TransferModel
    task: Task
    predictions: dict[str, Predictions]


class Frozen:
    """The backbone that all jobs share, and the proof that nothing moved it.

    Args:
        model: the backbone with any job's head.
        member: that job.

    Attributes:
        state: of the backbone.
        stages: the backbone's part of ``audit.json``, once it was compared.
    """

    def __init__(self, model: TransferModel, member: Member) -> None:
        self.model = model
        self._phase = member.plan.phases[0]
        self._audit = Audit(model, member.info, ever_learning(member.plan))
        self._audit.start()
        self._audit.start_phase(self._phase.name, self._phase.learning)
        self._audit.received |= self._audit.ever_learning
        names = [name for name in model.state_dict() if name.startswith("backbone.")]
        self.state = {name: model.state_dict()[name] for name in sorted(names)}
        self.stages: list[dict[str, Any]] = []

    def compare(self) -> None:
        """Compare everything with what it was at the start; what moved is a violation of every job's audit."""
        self._audit.end_phase()
        self._audit.start_phase(self._phase.name, self._phase.learning)
        if not self.stages:
            self.stages = self._audit.finish()["stages"][:-1]

    @property
    def violations(self) -> list[str]:
        """What moved although it is frozen."""
        return list(self._audit.violations)


@dataclass(frozen=True)
class Shares:
    """The common work that a job has a part in.

    Attributes:
        runs: jobs in this process.
        stack: jobs that were stepped together with it, at first.
        fit_seconds: of the stack until the job ended.
        common_seconds: of what was prepared for all jobs of the process, extraction aside.
    """

    runs: int
    stack: int
    fit_seconds: float
    common_seconds: float


@dataclass(frozen=True)
class Place:
    """Where and how the jobs ran.

    Attributes:
        precision_name: as Lightning calls it.
        precision: the trainer's context for a forward pass.
        device: of the features.
        device_name: as people say it.
        meter: of the memory.
        static_digest: of the backbone.
    """

    precision_name: str
    precision: Precision
    device: torch.device
    device_name: str
    meter: CostMeter
    static_digest: str


class _HeadAlone(nn.Module):
    """A model of a head only, as the audit sees it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    @property
    def heads(self) -> dict[str, nn.Module]:
        return {"head": self.head}


def write_member(member: Member, frozen: Frozen, place: Place, shares: Shares) -> Result:
    """Write everything down, ``result.json`` last.

    Raises:
        DivergedError: its loss became something that is not a number.
        AuditError: something frozen moved, or something trainable never received a gradient.
    """
    started = time.perf_counter()
    run, data = member.run, member.splits.loaders.data
    model = TransferModel(frozen.model.backbone, member.head)
    apply_modes(model, member.plan.phases[0])
    table = stage_rows(model, member.info, member.plan, 0)
    _announce(member, model, shares, table)
    write_metrics(run.metrics_file, member.rows)
    if member.error is not None:
        raise member.error
    assert member.best is not None
    assert member.last is not None
    share_static(run.checkpoints, static_folder(run.path), frozen.state, known_digest=place.static_digest)
    audit = _audit(member, frozen, table)
    write_json(run.audit_file, to_plain(audit))
    raise_violations(audit)
    member.head.load_state_dict(member.best.state)
    scored = Trained(model, member.task, _predictions(member, place))
    write_checkpoints(member, model, place.static_digest, _lengths(member))
    result = build_result(
        member.resolved,
        scored,
        data,
        audit,
        params=count_parameters(member.info, ever_learning(member.plan)),
        cache=member.splits.loaders.record(),
        best_epoch=member.best.epoch,
        epochs=member.last.epoch + 1,
        precision=place.precision_name,
        details={"fused": vars(shares)},
    )
    _record_cost(member, place, shares, own_seconds=time.perf_counter() - started)
    return write_down(result, run, member.attempt, scored, data, [], member.resolved)


def _announce(member: Member, model: TransferModel, shares: Shares, table: list[StageRow]) -> None:
    """What a single run says while it trains."""
    show(data_notice(member.splits.loaders.data.summary()))
    show(weights_notice(model.backbone.weights))
    show(audit_table(table))
    show(f"Trained together with {shares.runs - 1} other runs (hydra/launcher=fused)")
    show("\n".join(epoch_line(row, member.max_epochs) for row in member.rows))


def _audit(member: Member, frozen: Frozen, table: list[StageRow]) -> dict[str, Any]:
    """The outcome for ``audit.json``: the common backbone's stages and the job's own head."""
    assert member.last is not None
    alone = cast(TransferModel, _HeadAlone(member.head))
    audit = Audit(alone, ModelInfo((member.info.head,)), ever_learning(member.plan))
    audit.start()
    member.head.load_state_dict(member.last.state)
    audit.received |= {f"head.{name}" for name in member.last.state}
    outcome = audit.finish()
    violations = frozen.violations + outcome["violations"]
    return {
        "ok": not violations,
        "violations": violations,
        "unmoved": outcome["unmoved"],
        "stages": frozen.stages + outcome["stages"],
        "phases": [phase_table(member.plan.phases[0], member.info, table)],
    }


def _predictions(member: Member, place: Place) -> dict[str, Predictions]:
    member.head.to(place.device).eval()
    found: dict[str, Predictions] = {}
    for split in ("val", "test"):
        if split in member.splits.features:
            features = member.splits.features[split]
            outputs = EpochOutputs()
            with torch.no_grad(), place.precision():
                for index in batches_of(len(features), evaluation_size(member.config)):
                    rows, targets = features.batch(0, index.to(place.device))
                    outputs.add(member.head(rows).float(), targets, index)
            found[split] = outputs.gather(member.task)
    return found


def _record_cost(member: Member, place: Place, shares: Shares, *, own_seconds: float) -> None:
    """The job's share of what was done together, and extraction as if nothing had been stored before."""
    attempt, fit = member.attempt, member.fit_seconds
    extracted = max(0.0, member.splits.loaders.extract_seconds - attempt.earlier.extract_seconds)
    attempt.record(
        ended=True,
        fit_seconds=round(fit, 3),
        extract_seconds=round(extracted, 3),
        total_seconds=round(extracted + fit + shares.common_seconds / shares.runs + own_seconds, 3),
        peak_memory_bytes=place.meter.peak_memory_bytes,
        images_seen=member.images_seen,
        device=place.device_name,
    )


def _lengths(member: Member) -> Lengths:
    val: Features = member.splits.features["val"]
    return Lengths(train=len(member.batches(0)[0]), val=-(-len(val) // evaluation_size(member.config)))
