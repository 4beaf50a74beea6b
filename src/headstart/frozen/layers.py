"""Layers in a stack of heads: each head drops what it would drop alone, and rounds as it would alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from headstart.training.seeds import seed_torch


class StackedLayers(TorchFunctionMode):
    """Within it, a ``vmap`` over heads draws dropout head by head, and computes each layer in one product.

    Args:
        device: of the tensors.
        seed_of: torch's seed for the head of a place in this step.
    """

    def __init__(self, device: torch.device, seed_of: Callable[[int], int]) -> None:
        super().__init__()
        self._device, self._seed_of = device, seed_of
        self._states: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Dropout and linear layers as torch's own call them are replaced, everything else is as it is."""
        return (self._dropout if func is F.dropout else _linear if func is F.linear else func)(*args, **(kwargs or {}))

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        factors: Tensor | None = _Factors.apply(input.detach(), p, self._draw) if training and p else None
        return input if factors is None else input * factors

    def _draw(self, like: Tensor, chance: float) -> Tensor:
        """``(heads, ...)`` factors, 0 or ``1 / (1 - chance)``."""
        cuda = self._device.type == "cuda"
        drawn, states = [], []
        for place, rows in enumerate(like):
            if not self._states:
                seed_torch(self._seed_of(place), self._device)
            elif cuda:
                torch.cuda.set_rng_state(self._states[place], self._device)
            else:
                torch.set_rng_state(self._states[place])
            drawn.append(F.dropout(torch.ones_like(rows), chance))
            states.append(torch.cuda.get_rng_state(self._device) if cuda else torch.get_rng_state())
        self._states = states
        return torch.stack(drawn)


class _Factors(torch.autograd.Function):
    """Random factors under ``vmap``, which by itself knows no seeds."""

    @staticmethod
    def forward(rows: Tensor, chance: float, draw: Callable[[Tensor, float], Tensor]) -> Tensor:
        """Only ever mapped."""
        return draw(rows[None], chance)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """There is no gradient."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, rows: Tensor, chance: float, draw: Callable[[Tensor, float], Tensor]) -> Any:
        """For all heads."""
        return draw(rows.movedim(in_dims[0], 0), chance), 0


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer that rounds once, as one alone does: ``vmap`` would round the product, and then the sum."""
    if bias is None or input.dim() != 2:
        return F.linear(input, weight, bias)
    outputs: Tensor = _Linear.apply(input, weight, bias)
    return outputs


class _Linear(torch.autograd.Function):
    """``(B, in)`` to ``(B, out)``, for all heads in one product."""

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Only ever mapped."""
        return F.linear(rows, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """The mapped product has its own gradient."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Any:
        """For all heads; rows that they share are not copied."""
        heads = info.batch_size
        rows, weight, bias = (
            tensor.expand(heads, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip((rows, weight, bias), in_dims, strict=True)
        )
        return torch.baddbmm(bias[:, None], rows, weight.transpose(1, 2)), 0
