from collections.abc import Callable

import pytest
import torch
from torch import nn

from headstart.backbones.contract import FeatureSpec
from headstart.errors import ConfigError
from headstart.heads import MLP, FlattenMLP, Linear, Pool

SPECS = (
    FeatureSpec(6, (6, 3, 4), "NCHW"),
    FeatureSpec(6, (3, 4, 6), "NHWC"),
    FeatureSpec(6, (5, 6), "NLC", "avg", 2),
    FeatureSpec(6, (5, 6), "NLC", "token", 1),
    FeatureSpec(6, (6,), "NC"),
)

Head = Callable[[FeatureSpec, int], nn.Module]
HEADS: tuple[Head, ...] = (Linear, MLP, FlattenMLP)


def features(spec: FeatureSpec, batch: int = 4) -> torch.Tensor:
    return torch.randn((batch, *spec.shape), generator=torch.Generator().manual_seed(0))


def test_pool_is_the_mean_over_positions_or_the_token() -> None:
    expected: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        lambda x: x.flatten(2).mean(-1),
        lambda x: x.flatten(1, 2).mean(1),
        lambda x: (x[:, 2] + x[:, 3] + x[:, 4]) / 3,
        lambda x: x[:, 0],
        lambda x: x,
    )
    for spec, calculate in zip(SPECS, expected, strict=True):
        given = features(spec)
        torch.testing.assert_close(Pool(spec)(given), calculate(given))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.layout}-{spec.pool}")
@pytest.mark.parametrize("head", HEADS)
def test_every_head_takes_every_layout(head: Head, spec: FeatureSpec) -> None:
    module = head(spec, 3)
    outputs = module(features(spec))
    assert outputs.shape == (4, 3)
    outputs.square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_flat_head_sees_where_something_is_and_a_pooled_one_does_not() -> None:
    spec = SPECS[0]
    given = features(spec)
    moved = given.roll(1, dims=-1)
    for head, sees in ((MLP(spec, 2), False), (FlattenMLP(spec, 2), True)):
        assert torch.allclose(head(given), head(moved), atol=1e-6) is not sees


def test_hidden_layers_are_built_in_order_with_their_dropout() -> None:
    head = MLP(SPECS[0], 2, hidden=(8, 5), activation="tanh", dropout=0.25)
    kinds = [type(layer).__name__ for layer in head.hidden]
    assert kinds == ["Linear", "Tanh", "Dropout"] * 2
    sizes = [(layer.in_features, layer.out_features) for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(6, 8), (8, 5), (5, 2)]
    assert {layer.p for layer in head.modules() if isinstance(layer, nn.Dropout)} == {0.25}


@pytest.mark.parametrize("head", HEADS)
def test_the_global_seed_decides_the_initial_weights(head: Head) -> None:
    def state(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return [parameter.detach().clone() for parameter in head(SPECS[0], 3).parameters()]

    assert all(torch.equal(a, b) for a, b in zip(state(1), state(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(state(1), state(2), strict=True))


@pytest.mark.parametrize("head", HEADS)
def test_the_first_outputs_are_nearly_those_of_guessing(head: Head) -> None:
    torch.manual_seed(0)
    spec = FeatureSpec(256, (256, 2, 2), "NCHW")
    with torch.no_grad():
        probabilities = head(spec, 10)(features(spec, 32)).softmax(dim=1)
    assert float((probabilities - 0.1).abs().max()) < 0.15


def test_hidden_layers_keep_the_scale_of_what_they_get() -> None:
    spec = FeatureSpec(512, (512,), "NC")
    head = MLP(spec, 2, hidden=(512, 512, 512))
    with torch.no_grad():
        scale = float(head.hidden(features(spec, 64)).square().mean())
    assert 0.5 < scale < 2.0


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"activation": "step"}, "head.activation=step"),
        ({"dropout": 1.0}, "head.dropout=1.0"),
        ({"hidden": (4, 0)}, "head.hidden"),
    ],
)
def test_wrong_choices_are_refused_by_their_key(options: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        MLP(SPECS[0], 2, **options)  # type: ignore[arg-type]


def test_dropout_acts_in_training_only() -> None:
    head = Linear(SPECS[4], 2, dropout=0.5)
    given = features(SPECS[4])
    assert torch.equal(head.eval()(given), head(given))
    assert not torch.equal(head.train()(given), head(given))
