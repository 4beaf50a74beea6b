"""Mixed batches: what they are, that they can be repeated, and that tasks take their targets."""

import pytest
import torch

from headstart.tasks import build_task
from headstart.training.batch_transform import BatchTransform, hard_targets

IMAGES, TARGETS = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_images_and_targets_are_mixed_alike(name):
    transform = BatchTransform(name, alpha=1.0, classes=3, seed=1)
    images, targets = transform(IMAGES, TARGETS, epoch=0, batch_index=0)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))
    for position in range(6):
        # Both partners of the pair, and the share, from the targets alone.
        other = IMAGES[(position - 1) % 6]
        share = targets[position, TARGETS[position]].item()
        if name == "mixup":
            torch.testing.assert_close(images[position], share * IMAGES[position] + (1 - share) * other)
        else:
            kept = (images[position] == IMAGES[position]).all(dim=0).float().mean().item()
            assert kept == pytest.approx(share, abs=1e-6)


def test_mixing_is_a_function_of_seed_epoch_batch_and_process():
    def mixed(seed: int = 1, **place: int) -> torch.Tensor:
        where = {"epoch": 0, "batch_index": 0} | place
        return BatchTransform("mixup", alpha=0.8, classes=3, seed=seed)(IMAGES, TARGETS, **where)[0]

    torch.manual_seed(0)
    first = mixed()
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after), "mixing must not draw from the generator that dropout uses"
    assert torch.equal(mixed(), first)
    others = [mixed(seed=2), mixed(epoch=1), mixed(batch_index=1), mixed(rank=1)]
    assert not any(torch.equal(other, first) for other in others)


def test_the_largest_share_is_the_class():
    assert hard_targets(TARGETS) is TARGETS
    assert hard_targets(torch.tensor([[0.2, 0.8], [0.6, 0.4]])).tolist() == [1, 0]


@pytest.mark.parametrize("weights", ["none", [1.0, 3.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_sure_shares_have_the_loss_of_class_numbers(name, smoothing, weights):
    task = build_task(name, ("a", "b"), label_smoothing=smoothing, class_weights=weights)
    outputs, targets = torch.randn(5, task.outputs), torch.tensor([0, 1, 1, 0, 1])
    shares = torch.nn.functional.one_hot(targets, 2).float()
    torch.testing.assert_close(task.objective(outputs, shares), task.objective(outputs, targets))


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_the_loss_of_shares_is_the_mean_over_classes(name):
    task = build_task(name, ("a", "b"))
    outputs = torch.randn(1, task.outputs)
    each = [task.objective(outputs, torch.tensor([c])) for c in (0, 1)]
    mixed = task.objective(outputs, torch.tensor([[0.3, 0.7]]))
    torch.testing.assert_close(mixed, 0.3 * each[0] + 0.7 * each[1])
