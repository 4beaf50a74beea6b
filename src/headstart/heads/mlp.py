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
    """Pool, then layers of ``hidden`` units, each with activation and dropout, then one linear layer."""

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
        self.pool, inputs = self._vectors(features)
        self.hidden, inputs = hidden_layers(inputs, hidden, activation=activation, dropout=dropout)
        self.linear = output_layer(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, *features.shape)`` to ``(B, outputs)``."""
        outputs: Tensor = self.linear(self.hidden(self.pool(features)))
        return outputs

    @staticmethod
    def _vectors(features: FeatureSpec) -> tuple[nn.Module, int]:
        """From features to vectors, and their length."""
        return Pool(features), features.dim


class FlattenMLP(MLP):
    """The same on the whole feature map: every position has its own weights, so the image size is fixed."""

    @staticmethod
    def _vectors(features: FeatureSpec) -> tuple[nn.Module, int]:
        return nn.Flatten(), math.prod(features.shape)
