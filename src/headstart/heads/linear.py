"""One linear layer on pooled features."""

from typing import Annotated

from torch import Tensor, nn

from headstart.backbones.contract import FeatureSpec
from headstart.heads.layers import output_layer
from headstart.heads.pool import Pool
from headstart.system.options import AtLeast, Below, checked


class Linear(nn.Module):
    """Pool, dropout, one linear layer: the classifier that most networks were pretrained with."""

    @checked("head")
    def __init__(
        self, features: FeatureSpec, outputs: int, *, dropout: Annotated[float, AtLeast(0), Below(1)] = 0.0
    ) -> None:
        super().__init__()
        self.pool = Pool(features)
        self.dropout = nn.Dropout(dropout)
        self.linear = output_layer(features.dim, outputs)

    @property
    def plain_linear(self) -> nn.Linear:
        """The layer: what this head is on pooled features."""
        return self.linear

    def forward(self, features: Tensor) -> Tensor:
        """``(B, *features.shape)`` to ``(B, outputs)``."""
        outputs: Tensor = self.linear(self.dropout(self.pool(features)))
        return outputs
