"""Tasks that share weights do not share statistics."""

import copy

import pytest
import torch
from torch import nn

from headstart.heads.task_head import TaskHead


@pytest.fixture
def backbone() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4)), nn.ReLU(), nn.Flatten())
    network(torch.randn(8, 3, 4, 4))  # statistics that are not the initial ones
    return network


def statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.named_buffers()}


def test_each_task_has_the_statistics_of_its_own_images_alone(backbone: nn.Sequential):
    head = TaskHead(nn.Linear(16, 2), backbone)
    alone = {name: copy.deepcopy(backbone) for name in ("target", "other")}
    torch.manual_seed(1)
    for _ in range(3):
        target, other = torch.randn(8, 3, 4, 4), torch.randn(8, 3, 4, 4) * 5 + 7
        outputs = backbone(target)
        with head.statistics_in(backbone):
            outputs_of_other = head(backbone(other))
        (outputs.sum() + outputs_of_other.sum()).backward()  # both passes before the backward one
        alone["target"](target), alone["other"](other)
    for name, tensor in statistics(backbone).items():
        torch.testing.assert_close(tensor, dict(alone["target"].named_buffers())[name])
    for name, tensor in statistics(alone["other"]).items():
        torch.testing.assert_close(getattr(head, name.replace(".", "_")), tensor)
    assert not torch.equal(backbone[1][0].running_mean, head.get_buffer("1_0_running_mean"))


def test_evaluation_uses_them_and_moves_nothing(backbone: nn.Sequential):
    head, images = TaskHead(nn.Linear(16, 2), backbone), torch.randn(8, 3, 4, 4)
    with head.statistics_in(backbone):
        backbone(images * 3)
    before, own = statistics(backbone), statistics(head)
    backbone.eval()
    with head.statistics_in(backbone):
        seen = backbone(images)
    assert not torch.equal(seen, backbone(images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in statistics(backbone).items())
    assert all(torch.equal(tensor, own[name]) for name, tensor in statistics(head).items())


def test_an_error_leaves_the_backbone_its_own(backbone: nn.Sequential):
    head, own = TaskHead(nn.Linear(16, 2), backbone), backbone[1][0].running_mean
    with pytest.raises(ValueError, match="stop"), head.statistics_in(backbone):
        raise ValueError("stop")
    assert backbone[1][0].running_mean is own
