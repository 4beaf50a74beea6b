"""Checkpoints as Lightning writes them at an epoch's end, so that a run can go on from what was trained together."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.progress import _BaseProgress
from torch import Tensor

from headstart.frozen.member import Kept, Member
from headstart.model.transfer_model import TransferModel
from headstart.training.assemble import build_optimizer
from headstart.training.checkpoints import AtomicCheckpointIO, build_checkpoints
from headstart.training.rates import torch_groups


@dataclass(frozen=True)
class Lengths:
    """How long an epoch is.

    Attributes:
        train: its steps.
        val: batches of validation.
    """

    train: int
    val: int


def write_checkpoints(member: Member, model: TransferModel, static_digest: str, lengths: Lengths) -> None:
    """The best checkpoint and the last one of a job that has ended.

    Args:
        member: the job.
        model: with its head.
        static_digest: of what never changes.
        lengths: of an epoch.
    """
    assert member.best is not None
    assert member.last is not None
    folder, writer = member.run.checkpoints, AtomicCheckpointIO()
    folder.mkdir(parents=True, exist_ok=True)
    best = _checkpoint(member, member.best, static_digest, lengths)
    writer.save_checkpoint(best, folder / "best.ckpt")
    last = _checkpoint(member, member.last, static_digest, lengths)
    own = last.pop("headstart")
    everything = {
        **last,
        "callbacks": _callbacks(member),
        "optimizer_states": [_optimizer_state(member, model)],
        "lr_schedulers": [],
        "headstart": own,
    }
    writer.save_checkpoint(everything, folder / "last.ckpt")


def _checkpoint(member: Member, kept: Kept, static_digest: str, lengths: Lengths) -> dict[str, Any]:
    steps = (kept.epoch + 1) * lengths.train
    return {
        "epoch": kept.epoch,
        "global_step": steps,
        "pytorch-lightning_version": pl.__version__,
        "state_dict": {f"model.head.{name}": tensor for name, tensor in kept.state.items()},
        "loops": _loops(kept.epoch, steps, lengths),
        "headstart": {
            "static_digest": static_digest,
            "received": sorted(f"head.{name}" for name in kept.state),
            "plateau": kept.plateau,
        },
    }


def _loops(epoch: int, steps: int, lengths: Lengths) -> dict[str, Any]:
    """The state of a trainer's loops after an epoch, in the very form of the installed Lightning."""
    trainer = _idle_trainer()
    fit = trainer.fit_loop
    steps_loop = fit.epoch_loop
    steps_loop._batches_that_stepped = steps
    _set(steps_loop.batch_progress, steps, lengths.train, is_last_batch=True)
    optimizer = steps_loop.automatic_optimization.optim_progress.optimizer
    _set(optimizer.step, steps, lengths.train)
    _set(optimizer.zero_grad, steps, lengths.train)
    _set(steps_loop.val_loop.batch_progress, lengths.val, lengths.val, is_last_batch=True)
    for part in (fit.epoch_progress.total, fit.epoch_progress.current):
        for name in vars(part):
            setattr(part, name, epoch if name == "completed" else epoch + 1)
    loops = {
        "fit_loop": fit,
        "validate_loop": trainer.validate_loop,
        "test_loop": trainer.test_loop,
        "predict_loop": trainer.predict_loop,
    }
    return {name: loop.state_dict() for name, loop in loops.items()}


@cache
def _idle_trainer() -> pl.Trainer:
    return pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)


def _set(progress: Any, total: int, current: int, **more: Any) -> None:
    for part, value in ((progress.total, total), (progress.current, current)):
        assert isinstance(part, _BaseProgress)
        for name in vars(part):
            setattr(part, name, value)
    for name, value in more.items():
        setattr(progress, name, value)


def _callbacks(member: Member) -> dict[str, Any]:
    """The states of the callbacks that have one."""
    folder, task = member.run.checkpoints, member.task
    every = member.config["callbacks"]["checkpoint"]["every_n_epochs"]
    best, last = build_checkpoints(folder, monitor=task.monitor, mode=task.monitor_mode, every_n_epochs=every)
    path, score = str(folder / "best.ckpt"), member.score
    assert score is not None
    best.best_model_path = best.kth_best_model_path = path
    best.best_model_score = best.current_score = best.kth_value = score
    best.best_k_models = {path: score}
    last.best_model_path = str(folder / "last.ckpt")
    found = [best, last, *([member.stopping] if member.stopping is not None else [])]
    return {callback.state_key: callback.state_dict() for callback in found}


def _optimizer_state(member: Member, model: TransferModel) -> Mapping[str, Any]:
    """The state of the optimizer that the job alone would have had."""
    settings = member.resolved.settings
    groups = torch_groups(member.plan.groups, model, weight_decay=settings.weight_decay)
    optimizer = build_optimizer(settings.optimizer, settings.trainer)(groups)
    parameters = dict(model.named_parameters())
    for name, state in member.optimizer.items():
        if state:
            optimizer.state[parameters[f"head.{name}"]] = {key: _on_cpu(value) for key, value in state.items()}
    for group, rate in zip(optimizer.param_groups, member.last_rates, strict=True):
        group["lr"] = rate
    return optimizer.state_dict()


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu().clone() if isinstance(value, Tensor | torch.nn.Parameter) else value
