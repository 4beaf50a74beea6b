"""What the heads are made of: fully connected layers with their initial weights."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

Activation = Literal["relu", "gelu", "silu", "tanh", "leaky_relu"]
_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
}

# Small enough that the first outputs hardly differ from each other, so the first loss is that of guessing.
OUTPUT_STD = 0.01


def output_layer(inputs: int, outputs: int) -> nn.Linear:
    """``(B, inputs)`` to ``(B, outputs)``: small random weights, no bias at first."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=OUTPUT_STD)
    nn.init.zeros_(layer.bias)
    return layer


def hidden_layers(
    inputs: int, hidden: Sequence[int], *, activation: Activation, dropout: float
) -> tuple[nn.Sequential, int]:
    """Fully connected layers, each followed by its activation and dropout.

    Returns: the layers, ``(B, inputs)`` to ``(B, hidden[-1])``, and the number of their outputs.
    """
    # He et al. 2015, eq. 10: rectifiers halve the variance, tanh keeps it near zero.
    gain = 1.0 if activation == "tanh" else 2.0**0.5
    layers = nn.Sequential()
    for number, size in enumerate(hidden):
        linear = nn.Linear(inputs, size)
        nn.init.normal_(linear.weight, std=gain / inputs**0.5)
        nn.init.zeros_(linear.bias)
        layers.add_module(f"linear{number}", linear)
        layers.add_module(f"activation{number}", _ACTIVATIONS[activation]())
        layers.add_module(f"dropout{number}", nn.Dropout(dropout))
        inputs = size
    return layers, inputs
