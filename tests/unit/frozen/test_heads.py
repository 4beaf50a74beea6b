"""Which epoch of a head is kept; what training in one loop gives is in ``execution/test_together.py``."""

from functools import partial

import torch

from headstart.frozen.heads import HeadTraining, TrainedHead
from headstart.model.phases import one_phase
from headstart.tasks import build_task
from headstart.training.rates import RatePlan, Schedule


def best_epoch(scores: list[tuple[float, float]]) -> int:
    plan = RatePlan(0.1, one_phase("head", [], len(scores)), (), Schedule())
    recipe = HeadTraining(
        torch.nn.Linear(1, 1),
        "",
        {},
        plan,
        build_task("multiclass", ("a", "b")),
        partial(torch.optim.SGD, lr=0.1),
        max_epochs=len(scores),
        seed=0,
        batch_size=1,
        eval_batch_size=1,
    )
    head = TrainedHead(recipe, 1)
    for epoch, (acc, loss) in enumerate(scores):
        metrics = {"train/loss": 1.0, "val/acc": acc, "val/loss": loss}
        head.end_epoch(metrics, epoch + 0.5, lambda epoch=epoch: {"w": torch.tensor(epoch)}, step=epoch, seconds=0.0)
    assert head.best["w"].item() == head.best_epoch
    return head.best_epoch


def test_of_epochs_that_score_alike_the_one_with_the_lower_loss_is_kept():
    assert best_epoch([(0.5, 2.0), (0.5, 1.0), (0.5, 1.5), (0.4, 0.1)]) == 1
    assert best_epoch([(0.5, 1.0), (0.5, 1.0), (0.5, 1.1)]) == 0
    assert best_epoch([(0.4, 0.1), (0.5, 2.0), (0.5, 1.9)]) == 2
    assert best_epoch([(0.5, float("nan")), (0.5, 3.0)]) == 1
