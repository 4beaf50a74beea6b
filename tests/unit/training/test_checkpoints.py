"""Which epoch is kept, from real fits with validation scores that are written down beforehand."""

import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from headstart.training.checkpoints import BEST, LAST, build_checkpoints
from headstart.training.quiet import quiet_lightning

Scores = list[tuple[float, float]]


class Scripted(pl.LightningModule):
    """Scores each epoch as it is told: accuracy and loss."""

    def __init__(self, scores: Scores) -> None:
        super().__init__()
        self.layer, self.scores = torch.nn.Linear(1, 1), scores

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0]).mean()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        acc, loss = self.scores[self.current_epoch]
        self.log_dict({"val/acc": acc, "val/loss": loss})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    scores: Scores, folder: Path, *, monitor: str, mode: str, epochs: int, resume: bool = False, every: int = 1
) -> int:
    """The epoch that is kept as the best, counted from 0."""
    quiet_lightning()
    images = DataLoader(TensorDataset(torch.ones(2, 1)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=build_checkpoints(folder, monitor=monitor, mode=mode, every_n_epochs=every),
    )
    trainer.fit(Scripted(scores), images, images, ckpt_path=folder / f"{LAST}.ckpt" if resume else None)
    return int(torch.load(folder / f"{BEST}.ckpt", weights_only=True)["epoch"])


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.5, 2.0), (0.5, 1.0), (0.5, 1.5), (0.4, 0.1)], 1),
        ([(0.5, 1.0), (0.5, 1.0), (0.5, 1.1)], 0),
        ([(0.4, 0.1), (0.5, 2.0), (0.5, 1.9)], 2),
        ([(0.5, math.nan), (0.5, 3.0)], 1),
    ],
    ids=["lower loss", "same loss: the first", "better first", "no number"],
)
def test_of_epochs_that_score_alike_the_one_with_the_lower_loss_is_kept(scores: Scores, best: int, tmp_path: Path):
    assert fit(scores, tmp_path, monitor="val/acc", mode="max", epochs=len(scores)) == best


def test_a_resumed_fit_knows_what_a_tie_must_beat(tmp_path: Path):
    scores = [(0.5, 1.0), (0.4, 0.2), (0.5, 1.5), (0.5, 0.9)]
    assert fit(scores, tmp_path, monitor="val/acc", mode="max", epochs=2) == 0
    assert fit(scores, tmp_path, monitor="val/acc", mode="max", epochs=3, resume=True) == 0
    assert fit(scores, tmp_path, monitor="val/acc", mode="max", epochs=4, resume=True) == 3


def test_the_last_checkpoint_is_of_every_so_many_epochs_and_of_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved: list[int] = []
    save = pl.Trainer.save_checkpoint

    def note(trainer: pl.Trainer, path: Path, *args: object, **kwargs: object) -> None:
        if Path(path).stem == LAST:
            saved.append(trainer.current_epoch)
        save(trainer, path, *args, **kwargs)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", note)
    fit([(0.5, 1.0)] * 5, tmp_path, monitor="val/acc", mode="max", epochs=5, every=2)
    assert saved == [1, 3, 4]
