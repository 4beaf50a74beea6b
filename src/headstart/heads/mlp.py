"""Fully connected heads with hidden layers."""

import math
from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from headstart.backbones.contract import FeatureSpec
from headstart.heads.layers import Activation, hidden_layers, output_layer
from headstart.heads.pool import Pool
from headstart.system.options import AtLeast, Below, checked


class MLP(nn.Module):
    """Pool, then hidden layers, each with activation and dropout, then one linear layer.

    Args:
        features: what the backbone ends in.
        outputs: number of outputs.
        hidden: units of each hidden layer.
        activation: relu, gelu, silu, tanh or leaky_relu.
        dropout: probability that a hidden unit is dropped in training.
    """

    @checked("head")
    def __init__(
        self,
        features: FeatureSpec,
        outputs: int,
        *,
        hidden: Annotated[Sequence[int], AtLeast(1)] = (1024,),
        activation: Activation = "relu",
        dropout: Annotated[float, AtLeast(0), Below(1)] = 0.0,
    ) -> None:
        super().__init__()
        self.pool = Pool(features)
        self.hidden, inputs = hidden_layers(features.dim, hidden, activation=activation, dropout=dropout)
        self.linear = output_layer(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, *features.shape)`` to ``(B, outputs)``."""
        outputs: Tensor = self.linear(self.hidden(self.pool(features)))
        return outputs


class FlattenMLP(nn.Module):
    """The same on the whole feature map: every position has its own weights, so the image size is fixed.

    Args:
        features: what the backbone ends in.
        outputs: number of outputs.
        hidden: units of each hidden layer.
        activation: relu, gelu, silu, tanh or leaky_relu.
        dropout: probability that a hidden unit is dropped in training.
    """

    @checked("head")
    def __init__(
        self,
        features: FeatureSpec,
        outputs: int,
        *,
        hidden: Annotated[Sequence[int], AtLeast(1)] = (1024,),
        activation: Activation = "relu",
        dropout: Annotated[float, AtLeast(0), Below(1)] = 0.0,
    ) -> None:
        super().__init__()
        inputs = math.prod(features.shape)
        self.hidden, inputs = hidden_layers(inputs, hidden, activation=activation, dropout=dropout)
        self.linear = output_layer(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, *features.shape)`` to ``(B, outputs)``."""
        outputs: Tensor = self.linear(self.hidden(features.flatten(1)))
        return outputs
