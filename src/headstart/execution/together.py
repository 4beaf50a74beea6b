"""Runs over one frozen backbone in one process: prepared once, their heads trained together, each written as any."""

import copy
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import nn

from headstart.config import ResolvedRun, RunSettings
from headstart.data.datamodule import ImageDataModule
from headstart.errors import RunError
from headstart.execution.assemble import Prepared, build_bare_trainer, build_loaders, static_folder
from headstart.execution.batches import check_batches
from headstart.execution.outcome import Answered, build_result, count_parameters, device_name, write_down
from headstart.execution.summary import data_notice
from headstart.execution.train import log_file, open_directory, record_failure
from headstart.frozen.features import SplitFeatures, load_features
from headstart.frozen.heads import HeadTraining, Stack, TrainedHead, stacks
from headstart.model.description import ModelInfo
from headstart.model.transfer_model import TransferModel
from headstart.runs.directory import Attempt, RunDirectory
from headstart.runs.result import to_plain
from headstart.store.activations import CachedData
from headstart.store.decide import views_in_turn
from headstart.store.extract import pooling_of
from headstart.system.atomic import write_json
from headstart.system.console import copied_to, duration, only_copied, show
from headstart.system.digests import digest
from headstart.tasks.predictions import EpochOutputs, Predictions
from headstart.training.assemble import (
    build_backbone,
    build_data,
    build_data_task,
    build_head,
    build_optimizer,
    build_plan,
    ever_learning,
    wants_channels_last,
)
from headstart.training.audit import Audit, audit_table, raise_violations
from headstart.training.checkpoints import save_best, share_static
from headstart.training.cost import CostMeter
from headstart.training.quiet import quiet_lightning
from headstart.training.rows import epoch_line, write_metrics
from headstart.weights.report import weights_notice

_log = logging.getLogger(__name__)

Refuse = Callable[[ResolvedRun, str], None]
T = TypeVar("T")

# Of the datamodule, what changes neither the images nor what is known of them.
_OF_THE_STEPS = ("batch_size", "drop_last", "steps_per_epoch")
_OF_THE_LOOP = (*_OF_THE_STEPS, "num_workers", "pin_memory", "seed")


@dataclass(frozen=True)
class Member:
    """One of the runs.

    Attributes:
        resolved: its choices.
        run: its directory, locked.
        attempt: records its cost.
        prepared: its model, whose backbone all members share.
        loaders: where its features came from.
        recipe: for its head.
    """

    resolved: ResolvedRun
    run: RunDirectory
    attempt: Attempt
    prepared: Prepared
    loaders: CachedData
    recipe: HeadTraining


def train_together(runs: Sequence[ResolvedRun], refuse: Refuse) -> None:
    """Train runs that have their shared part in common; each leaves its own run directory.

    A run that fails leaves a failed result and touches no other. A run directory is written as soon as its head
    has ended, so that an interruption takes only what was not trained to its end.

    Args:
        runs: none of which has an obstacle.
        refuse: takes those that must train alone after all, with the reason.
    """
    quiet_lightning()
    started = time.perf_counter()
    shared = Shared(runs[0])
    with ExitStack() as locks:
        members = list(_members(shared, runs, locks, refuse))
        if not members:
            return
        shared.start_audit(members[0])
        common_seconds = round(time.perf_counter() - started - sum(shared.cache_seconds), 3)
        for places in stacks([member.recipe for member in members]):
            fused = {"runs": len(members), "stack": len(places), "common_seconds": common_seconds}
            _train_stack([members[place] for place in places], shared, refuse, fused)


def _members(shared: "Shared", runs: Sequence[ResolvedRun], locks: ExitStack, refuse: Refuse) -> Iterator[Member]:
    for resolved in runs:
        try:
            member = shared.member(resolved, locks)
        except Exception as error:
            # Alone it fails alike, and says so as it always does.
            _log.debug("a run cannot be prepared", exc_info=True)
            member = f"{type(error).__name__}: {error}"
        if isinstance(member, str):
            refuse(resolved, member)
        else:
            yield member


def _train_stack(members: list[Member], shared: "Shared", refuse: Refuse, fused: dict[str, Any]) -> None:
    started, writing_seconds = time.perf_counter(), 0.0
    stack = Stack([m.recipe for m in members], device=shared.device, precision=shared.precision)
    owners = {id(head): member for head, member in zip(stack.running, members, strict=True)}
    try:
        for ended in stack.train():
            now = time.perf_counter()
            seconds = round(now - started - writing_seconds, 3)
            if stack.running:  # How far all are; the others' files are written once.
                write_metrics(owners[id(stack.running[0])].run.metrics_file, stack.running[0].rows)
            if ended:
                shared.compare()
            for head in ended:
                with only_copied():
                    _finish(owners[id(head)], head, shared, {**fused, "fit_seconds": seconds})
            writing_seconds += time.perf_counter() - now
    except Exception as error:
        _log.debug("the heads cannot be trained together", exc_info=True)
        reason = str(error).strip().partition("\n")[0]
        for head in stack.running:
            member = owners[id(head)]
            member.run.clear()
            refuse(member.resolved, f"{type(head.recipe.head).__name__} cannot be stacked: {reason}")
    seconds = time.perf_counter() - started
    show(f"{len(members) - len(stack.running)} runs trained together in {duration(seconds)}, files included")


def _finish(member: Member, head: TrainedHead, shared: "Shared", fused: dict[str, Any]) -> None:
    with log_file(member.run.log_file), copied_to(member.run.log_file):
        try:
            _write(member, head, shared, fused)
        except Exception as error:
            _log.debug("the run failed", exc_info=True)
            member.attempt.record(ended=True, fit_seconds=round(head.fit_seconds, 3))
            record_failure(error, member.resolved, member.run)


def _write(member: Member, head: TrainedHead, shared: "Shared", fused: dict[str, Any]) -> None:
    """Everything that a run leaves behind, ``result.json`` last.

    Raises:
        DivergedError: its loss became something that is not a number.
        AuditError: something frozen moved, or something trainable never received a gradient.
    """
    started = time.perf_counter()
    run, recipe, prepared = member.run, head.recipe, member.prepared
    show(data_notice(member.loaders.data.summary()))
    show(weights_notice(shared.backbone.weights))
    show(audit_table(prepared.show_phase(0)))
    show(f"Trained together with {fused['runs'] - 1} other runs (hydra/launcher=fused)")
    show("\n".join(epoch_line(row, recipe.max_epochs, recipe.task.monitor) for row in head.rows))
    write_metrics(run.metrics_file, head.rows)
    if head.error is not None:
        raise head.error
    share_static(run.checkpoints, static_folder(run.path), shared.state, known_digest=shared.digest)
    audit = shared.audit_of(member, head)
    audit["phases"] = prepared.phase_tables()
    write_json(run.audit_file, to_plain(audit))
    raise_violations(audit)
    recipe.head.load_state_dict(head.best)
    state = {f"head.{name}": tensor for name, tensor in head.best.items()}
    save_best(run.checkpoints, state, epoch=head.best_epoch, static_digest=shared.digest)
    # Its own from here on: it is calibrated.
    scored = Answered(prepared.model, copy.copy(recipe.task), shared.predict(recipe))
    result = build_result(
        member.resolved,
        scored,
        member.loaders,
        audit,
        params=count_parameters(prepared.audit),
        best_epoch=head.best_epoch,
        epochs=head.epochs,
        precision=str(shared.trainer.precision),
        details={"fused": fused, **head.choice.record()},
    )
    # The run's share of what was done together, and extraction as if nothing had been stored before.
    extracted = max(0.0, member.loaders.extract_seconds - member.attempt.earlier.extract_seconds)
    own = fused["common_seconds"] / fused["runs"] + time.perf_counter() - started
    member.attempt.record(
        ended=True,
        fit_seconds=round(head.fit_seconds, 3),
        extract_seconds=round(extracted, 3),
        total_seconds=round(extracted + head.fit_seconds + own, 3),
        peak_memory_bytes=shared.meter.peak_memory_bytes,
        images_seen=head.images_seen,
        device=device_name(shared.trainer),
    )
    write_down(result, run, member.attempt, scored, member.loaders.data, [], member.resolved)


class _HeadAlone(nn.Module):
    """A model of a head only, as the audit sees it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    @property
    def heads(self) -> dict[str, nn.Module]:
        return {"head": self.head}


class Shared:
    """What the runs of one process share: the backbone on its device, and each data set and its features once.

    Args:
        resolved: any of the runs.
    """

    def __init__(self, resolved: ResolvedRun) -> None:
        settings = resolved.settings
        self._seed = settings.seed
        size = settings.datamodule.arguments.get("image_size")
        self.backbone = build_backbone(settings.backbone, resolved.weights, seed=settings.seed, image_size=size)
        self.trainer = build_bare_trainer(settings.trainer)
        self.precision = self.trainer.precision_plugin.forward_context
        self.device: torch.device = self.trainer.strategy.root_device
        self.meter = CostMeter()
        self.meter.start(self.device)
        self.backbone.requires_grad_(False).eval().to(self.device)
        if wants_channels_last(settings.trainer.channels_last, self.backbone):
            self.backbone.to(memory_format=torch.channels_last)
        self._made: dict[str, Any] = {}
        self.cache_seconds: list[float] = []

    def member(self, resolved: ResolvedRun, locks: ExitStack) -> Member | str:
        """A run, its directory locked and opened; or why it must train alone.

        Raises:
            HeadstartError: its data or choices cannot be used.
        """
        settings, choice = resolved.settings, resolved.settings.datamodule.arguments
        if self.backbone.weights.missing and settings.seed != self._seed:
            return "the weights leave a part of the backbone to the seed"
        images = [settings.datamodule.without(*_OF_THE_LOOP), settings.task]
        if choice.get("val_steps") is not None:  # so many batches: their size decides which images validate
            images.append(choice["eval_batch_size"] or choice["batch_size"])
        data = self._once(partial(self._data, settings), "data", images)
        if choice["drop_last"] and data.sizes["train"] < choice["batch_size"]:
            return "datamodule.drop_last=true leaves none of its images"
        chosen = [images, settings.loss, settings.callbacks.checkpoint.monitor]
        task = self._once(partial(build_data_task, settings, data), "task", chosen)
        head = build_head(settings.head, self.backbone, task, seed=settings.seed)
        if any(True for _ in head.buffers()):
            return f"{type(head).__name__} has buffers, which may change in training"
        model = TransferModel(self.backbone, head)
        info = self._once(model.describe, "info", settings.head, task.outputs)
        plan = build_plan(settings, settings.strategy.build(), info)
        if len(plan.phases) != 1:
            return f"its strategy has {len(plan.phases)} phases"
        own = copy.copy(data)
        own.batch_size, own.drop_last, own.steps_per_epoch = (choice[name] for name in _OF_THE_STEPS)
        prepared = Prepared(plan, Audit(model, info, ever_learning(plan)), settings.batchnorm)
        check_batches(settings.trainer, own, prepared)
        pooled = pooling_of(model) is not None
        kind = [images, pooled, views_in_turn(settings.cache, plan.phases, own.steps_per_epoch)]
        loaders = self._once(partial(build_loaders, settings, own, prepared), "loaders", kind)
        features = self._once(lambda: self._features(loaders), "features", kind)
        if isinstance(features, str):
            return features
        clip, stopping = settings.trainer.gradient_clip_val, settings.callbacks.early_stopping
        recipe = HeadTraining(
            head,
            json.dumps([settings.head, settings.loss, settings.task], default=_plain),
            features,
            plan,
            task,
            build_optimizer(settings.optimizer, settings.trainer),
            max_epochs=settings.trainer.max_epochs,
            seed=settings.seed,
            batch_size=own.batch_size,
            eval_batch_size=choice["eval_batch_size"] or own.batch_size,
            drop_last=own.drop_last,
            steps_per_epoch=own.steps_per_epoch,
            balanced=own.balanced,
            clip=(settings.trainer.gradient_clip_algorithm or "norm", clip) if clip else None,
            stopping=(stopping.patience, stopping.min_delta) if stopping.enabled else None,
        )
        run = resolved.directory()
        try:
            locks.enter_context(run.lock(wait=False))
        except RunError:
            return "another process trains it now"
        if run.action != "train":
            return f"it is {run.state} by now"
        open_directory(run, resolved, resume=False)
        return Member(resolved, run, run.attempt(), prepared, loaders, recipe)

    def start_audit(self, member: Member) -> None:
        """Remember the backbone, before any training; all members have the same phase."""
        self._phase, self._audit = member.recipe.plan.phases[0], member.prepared.audit
        self._audit.start()
        self._audit.start_phase(self._phase.name, self._phase.learning)
        self._audit.received |= self._audit.ever_learning
        self.state = member.prepared.static_state()
        self.digest = digest(self.state)
        self._stages: list[dict[str, Any]] = []

    def compare(self) -> None:
        """Compare the backbone with what it was at the start; what moved is a violation of every run's audit."""
        self._audit.end_phase()
        self._audit.start_phase(self._phase.name, self._phase.learning)
        self._stages = self._stages or self._audit.finish()["stages"][:-1]

    def audit_of(self, member: Member, head: TrainedHead) -> dict[str, Any]:
        """The outcome for ``audit.json``: the common backbone's stages and the run's own head."""
        own, of_all = head.recipe.head, member.prepared.audit
        audit = Audit(cast(TransferModel, _HeadAlone(own)), ModelInfo((of_all.info.head,)), of_all.ever_learning)
        audit.start()
        own.load_state_dict(head.last)
        audit.received |= {f"head.{name}" for name in head.last}
        outcome = audit.finish()
        violations = self._audit.violations + outcome["violations"]
        return {**outcome, "ok": not violations, "violations": violations, "stages": self._stages + outcome["stages"]}

    def predict(self, recipe: HeadTraining) -> dict[str, Predictions]:
        """What the head says of the images that it was not trained on."""
        recipe.head.to(self.device).eval()
        found: dict[str, Predictions] = {}
        for split in sorted(recipe.features.keys() - {"train"}, reverse=True):
            features, outputs = recipe.features[split], EpochOutputs()
            with torch.no_grad(), self.precision():
                for index in torch.arange(len(features)).split(recipe.eval_batch_size):
                    rows, targets = features.batch(0, index.to(self.device))
                    outputs.add(recipe.head(rows).float(), targets, index)
            found[split] = outputs.gather(recipe.task)
        return found

    def _once(self, make: Callable[[], T], *key: Any) -> T:
        """What ``make`` gives, made for the first run of the same key."""
        name = json.dumps(key, default=_plain)
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made

    def _data(self, settings: RunSettings) -> ImageDataModule:
        data = build_data(settings.datamodule, seed=settings.seed, task=settings.task)
        data.configure(self.backbone.input_spec)
        return data

    def _features(self, loaders: CachedData) -> dict[str, SplitFeatures] | str:
        loaders.trainer = self.trainer
        features = load_features(loaders)
        self.cache_seconds.append(loaders.seconds)
        return features


def _plain(value: Any) -> Any:
    """Settings and components as JSON takes them."""
    return dict(value) if isinstance(value, Mapping) else vars(value) if hasattr(value, "__dict__") else str(value)
