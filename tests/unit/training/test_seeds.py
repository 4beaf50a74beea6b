"""What is drawn in training depends on the step alone."""

from types import SimpleNamespace
from typing import Any

import torch

from headstart.training.seeds import StepSeed


def test_every_batch_of_every_step_and_process_draws_its_own():
    drawn = []
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    for step, batch, rank in ((5, 0, 0), (5, 1, 0), (5, 0, 1), (6, 0, 0), (5, 0, 0)):
        trainer: Any = SimpleNamespace(global_step=step, global_rank=rank)
        StepSeed(1).on_train_batch_start(trainer, module, None, batch)
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[-1]
    assert len(set(drawn)) == 4
