"""A stack of heads gives each head what it gives alone, dropout included, up to rounding."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F  # noqa: N812

from headstart.backbones.contract import FeatureSpec
from headstart.frozen.layers import StackedLayers
from headstart.heads import MLP, FlattenMLP, Linear

JOBS, ROWS, CLASSES = 5, 23, 7
CPU = torch.device("cpu")


class Cosine(nn.Module):
    """A user's head: its product is an operator, its weights are no layer."""

    def __init__(self, features: FeatureSpec, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, features.dim))

    def forward(self, features: Tensor) -> Tensor:
        return 16 * (F.normalize(features) @ F.normalize(self.weight).T)


class Keyword(nn.Module):
    """Gives the product its tensors by name."""

    def __init__(self, features: FeatureSpec, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features.dim, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(input=features, weight=self.linear.weight, bias=self.linear.bias)


HEADS: dict[str, Callable[[FeatureSpec], nn.Module]] = {
    "linear": lambda spec: Linear(spec, CLASSES),
    "linear, dropout": lambda spec: Linear(spec, CLASSES, dropout=0.4),
    "mlp": lambda spec: MLP(spec, CLASSES, hidden=[32]),
    "mlp, two dropouts": lambda spec: MLP(spec, CLASSES, hidden=[32, 16], dropout=0.5),
    "flatten": lambda spec: FlattenMLP(spec, CLASSES, hidden=[16], activation="gelu"),
    "cosine": lambda spec: Cosine(spec, CLASSES),
    "keyword": lambda spec: Keyword(spec, CLASSES),
}


@pytest.mark.parametrize("mixed", [False, True], ids=["32", "bf16"])
@pytest.mark.parametrize("name", HEADS)
def test_outputs_and_gradients_are_those_of_single_heads(name: str, mixed: bool):
    torch.manual_seed(0)
    flat = name in ("flatten",)
    spec = FeatureSpec(64, (64, 2, 2) if flat else (64,), "NCHW" if flat else "NC", "avg")
    heads = [HEADS[name](spec) for _ in range(JOBS)]
    rows = torch.randn(JOBS, ROWS, *spec.shape).to(torch.bfloat16 if mixed else torch.float32)
    targets = torch.randint(CLASSES, (JOBS, ROWS))
    seeds = [11 * job for job in range(JOBS)]
    params = {key: value.detach().requires_grad_() for key, value in stack_module_state(heads)[0].items()}

    def outputs_of(params: dict[str, Tensor], rows: Tensor) -> Tensor:
        return functional_call(heads[0], params, (rows,)).float()

    with StackedLayers(CPU, seeds.__getitem__), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        together = vmap(outputs_of)(params, rows)
        losses = vmap(F.cross_entropy)(together, targets)
    losses.sum().backward()
    for job, head in enumerate(heads):
        torch.manual_seed(seeds[job])
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            alone = head(rows[job]).float()
            loss = F.cross_entropy(alone, targets[job])
        loss.backward()
        close = {"rtol": 2e-2, "atol": 2e-2} if mixed else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(together[job], alone, **close)
        assert losses[job].item() == pytest.approx(loss.item(), rel=1e-2 if mixed else 1e-5)
        for key, parameter in head.named_parameters():
            torch.testing.assert_close(params[key].grad[job], parameter.grad, **close)


def test_dropout_is_that_of_each_seed_and_off_in_evaluation():
    head = nn.Dropout(0.5)
    rows = torch.ones(2, 400)

    def drop(rows: Tensor) -> Tensor:
        return head(rows)

    with StackedLayers(CPU, [1, 2].__getitem__):
        dropped = vmap(drop)(rows)
    assert not torch.equal(dropped[0], dropped[1])
    for place, seed in enumerate((1, 2)):
        torch.manual_seed(seed)
        assert torch.equal(dropped[place], head(rows[place]))
    head.eval()
    with StackedLayers(CPU, [1, 2].__getitem__):
        assert torch.equal(vmap(drop)(rows), rows)


def test_other_randomness_is_refused():
    with StackedLayers(CPU, [1, 2].__getitem__), pytest.raises(RuntimeError, match="random"):
        vmap(lambda rows: rows + torch.rand_like(rows))(torch.ones(2, 3))
