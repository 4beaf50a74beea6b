"""What the trainer's switches leave of the data, found out before training."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer

from headstart.backbones.contract import RunningNorm
from headstart.config.settings import TrainerSettings
from headstart.data.datamodule import ImageDataModule
from headstart.data.sampler import EpochSampler
from headstart.errors import ConfigError, RunError
from headstart.execution.assemble import Prepared
from headstart.store.decide import trainer_obstacle
from headstart.training.module import TransferModule


def check_batches(trainer: TrainerSettings, data: ImageDataModule, prepared: Prepared) -> None:
    """Every limit leaves some batches, and BatchNorm never gets a single value.

    Raises:
        ConfigError: no batch of a split is left, or a training batch of one image cannot be normalised.
    """
    switches, counts = trainer.switches, batch_counts(trainer, data)
    for split, count in counts.items():
        for key in ("overfit_batches", f"limit_{split}_batches"):
            _check_share(key, switches.get(key), split, count)
    limit = switches.get("limit_train_batches")
    steps = counts["train"] if limit is None else _taken(limit, counts["train"])
    every = switches.get("val_check_interval")
    if isinstance(every, int) and every > steps and not switches.get("fast_dev_run"):
        raise ConfigError(
            f"trainer.val_check_interval={every} exceeds the {steps} training batches of an epoch, so that none would "
            "be validated; lower it, or leave it out"
        )
    if data.steps_per_epoch is None and not data.drop_last and steps == counts["train"]:
        _check_last_batch(data, prepared, _images(trainer, data) % data.batch_size or data.batch_size)


def cut_short(trainer: Trainer, switches: Mapping[str, Any]) -> list[str]:
    """Why a training that has ended says nothing about these choices: what it left out.

    Args:
        trainer: after its fit.
        switches: of the run.
    """
    reason = trainer_obstacle(switches)
    found = [reason] if reason else []
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]
    if timer is not None and (timer.time_remaining() or 0) <= 0:
        done, epochs = trainer.current_epoch, trainer.max_epochs or 0
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        if done < epochs or batches.ready < trainer.num_training_batches:
            found.append(f"trainer.max_time={switches['max_time']} ended the training in epoch {done} of {epochs}")
    return found


def check_phases_ran(trainer: Trainer, module: TransferModule, audit: Mapping[str, Any], switches: Any) -> None:
    """What never received a gradient because training ended before its phase is no fault of the strategy.

    Args:
        trainer: after its fit.
        module: that was trained.
        audit: its outcome.
        switches: of the run.

    Raises:
        RunError: training ended before the last phase began.
    """
    last, done = module.plan.phases[-1], trainer.current_epoch
    waiting = all(text.endswith("never received a gradient") for text in audit["violations"])
    if audit["ok"] or not waiting or done > last.start_epoch:
        return
    usual = {"fast_dev_run": False, "max_steps": -1, "max_time": None}
    named = [f"trainer.{key}={switches[key]}" for key, value in usual.items() if switches.get(key, value) != value]
    raise RunError(
        f"{' and '.join(named) or 'callbacks.early_stopping'} ended the training in epoch {done} of "
        f"{last.end_epoch}, before phase '{last.name}' began with epoch {last.start_epoch + 1}; train longer, or use a "
        "strategy of one phase"
    )


def _images(trainer: TrainerSettings, data: ImageDataModule) -> int:
    """Training images of each process in an epoch."""
    world = trainer.processes * trainer.num_nodes
    return len(EpochSampler(data.sizes["train"], seed=0, shuffle=True, world_size=world, drop_last=data.drop_last))


def batch_counts(trainer: TrainerSettings, data: ImageDataModule) -> dict[str, int]:
    """Batches of each split that a process gets in an epoch."""
    world, images = trainer.processes * trainer.num_nodes, _images(trainer, data)
    steps = images // data.batch_size if data.drop_last else -(-images // data.batch_size)
    evaluated = {split: -(-size // (world * data.eval_batch_size)) for split, size in data.sizes.items()}
    return {**evaluated, "train": data.steps_per_epoch or steps}


def _taken(limit: float, count: int) -> int:
    return min(limit, count) if isinstance(limit, int) else int(limit * count)


def _check_share(key: str, share: Any, split: str, count: int) -> None:
    if isinstance(share, float) and share > 0 and _taken(share, count) == 0:
        raise ConfigError(
            f"trainer.{key}={share} leaves none of the {count} {split} batches; give a share of at least "
            f"{math.ceil(1000 / count) / 1000:g}, or a number of batches"
        )


def _check_last_batch(data: ImageDataModule, prepared: Prepared, last: int) -> None:
    """A batch of one image that BatchNorm sees as a single value has no variance: asked of the network itself."""
    if last != 1 or data.spec is None:
        return
    model = prepared.model
    size = data.augmentation.train_size or data.spec.shape[1:]
    image = torch.zeros(1, data.spec.channels, *size)
    norms = [layer for layer in model.modules() if isinstance(layer, RunningNorm)]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for index in range(len(prepared.plan.phases)):
            prepared.show_phase(index)
            if not any(layer.training for layer in norms):
                continue
            try:
                model(image)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise ConfigError(
                    f"datamodule.batch_size={data.batch_size} leaves a batch of one image of {data.sizes['train']}, "
                    "for which BatchNorm has no variance at this datamodule.image_size; use datamodule.drop_last=true, "
                    "batchnorm=eval, or another batch size"
                ) from None
            finally:
                for name, buffer in model.named_buffers():
                    buffer.copy_(before[name])
