"""Seeds as functions of what they are for: of a purpose, or of a step of training."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

_STREAMS = {"backbone": 1, "head": 2, "training": 3, "strategy": 4}


def seed_stream(seed: int, stream: str) -> None:
    """Seed every generator for one purpose, so that a head starts the same whatever was built before it."""
    value = int(np.random.SeedSequence([seed, _STREAMS[stream]]).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def step_seed(seed: int, step: int, batch: int, rank: int = 0) -> int:
    """Torch's seed for one batch of training."""
    return int(np.random.SeedSequence([seed, step, batch, rank]).generate_state(1, np.uint64)[0])


def seed_torch(value: int, device: torch.device) -> None:
    """Seed what draws on a device and on the CPU.

    :func:`torch.manual_seed` also notes, with a traceback each (1.6 ms inside Lightning), what to seed of devices that
    nobody uses.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(value)
    else:
        torch.manual_seed(value)


class StepSeed(Callback):
    """Seeds torch for every training batch, so that dropout does not depend on what was drawn before.

    A run that was stopped and resumed at an epoch's end then draws what an uninterrupted one draws. The batch's
    number enters beside the step's: with gradient accumulation several batches share a step.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed from (seed, step, batch, rank)."""
        seed_torch(step_seed(self.seed, trainer.global_step, batch_idx, trainer.global_rank), pl_module.device)
