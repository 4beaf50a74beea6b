"""What a signal does while Lightning runs."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from headstart.execution.execute import _stopped_by_signals

BATCHES = 3


class Signalled(pl.LightningModule):
    """Gets SIGTERM while it scores one of its batches."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def _harmless_outside() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_harmless_outside")
@pytest.mark.parametrize("at", range(BATCHES))
def test_a_signal_in_any_batch_of_a_last_scoring_is_heard(at: int):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    with pytest.raises(KeyboardInterrupt), _stopped_by_signals(trainer):
        trainer.validate(Signalled(at), DataLoader(torch.zeros(BATCHES, 1)), verbose=False)
