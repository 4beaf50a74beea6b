"""The linear answer for every position."""

import torch
from torch.nn import functional as F  # noqa: N812

from headstart.backbones.contract import FeatureSpec
from headstart.heads.dense import Dense, QuickBatchNorm

MAPS = ((5, 8, 6), (7, 4, 3), (3, 2, 2))
LENGTH = sum(c * h * w for c, h, w in MAPS)


def dense(**keys: float) -> Dense:
    return Dense(FeatureSpec(15, (LENGTH,), "NCHW", maps=MAPS), 4, **keys)


def test_it_is_one_convolution_over_maps_enlarged_and_put_behind_each_other():
    torch.manual_seed(0)
    head = dense().eval()
    for norm in head.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    torch.nn.init.normal_(head.bias)
    maps = [torch.randn(2, *size) for size in MAPS]
    whole = torch.cat([F.interpolate(one, size=(8, 6), mode="bilinear", align_corners=False) for one in maps], dim=1)
    statistics = [torch.cat([getattr(norm, name) for norm in head.norms]) for name in ("running_mean", "running_var")]
    scale, shift = (torch.cat([getattr(norm, name) for norm in head.norms]) for name in ("weight", "bias"))
    normed = F.batch_norm(whole, *statistics, scale, shift, training=False)
    wanted = F.conv2d(normed, torch.cat([one.weight for one in head.convolutions], dim=1), head.bias)
    found = head(torch.cat([one.flatten(1) for one in maps], dim=1))
    assert found.shape == (2, 4, 8, 6)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_those_of_the_first_batches():
    torch.manual_seed(0)
    norm = QuickBatchNorm(3).train()
    batches = [0.01 * torch.randn(4, 3, 5, 5) + 2.0 for _ in range(3)]
    for batch in batches:
        norm(batch)
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(dim=(0, 2, 3)) for b in batches]).mean(dim=0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(dim=(0, 2, 3)) for b in batches]).mean(dim=0))


def test_running_statistics_go_on_where_a_saved_norm_was():
    torch.manual_seed(0)
    batches = [torch.randn(4, 3, 2, 2) for _ in range(14)]
    whole, first, second = (QuickBatchNorm(3).train() for _ in range(3))
    for number, batch in enumerate(batches):
        whole(batch)
        if number < 6:
            first(batch)
    second.load_state_dict(first.state_dict())
    for batch in batches[6:]:
        second(batch)
    assert torch.equal(whole.running_mean, second.running_mean)
    assert torch.equal(whole.running_var, second.running_var)
