"""One linear layer on pooled features."""

from typing import Annotated

from torch import Tensor, nn

from headstart.backbones.contract import FeatureSpec
from headstart.heads.layers import output_layer
from headstart.heads.pool import Pool
from headstart.system.options import AtLeast, Below, checked


class Linear(nn.Module):
    """Pool, dropout, one linear layer: the classifier that most networks were pretrained with.

    Args:
        features: what the backbone ends in.
        outputs: number of outputs.
        dropout: probability that a pooled feature is dropped in training.
    """

    @checked("head")
    def __init__(
        self, features: FeatureSpec, outputs: int, *, dropout: Annotated[float, AtLeast(0), Below(1)] = 0.0
    ) -> None:
        super().__init__()
        self.pool = Pool(features)
        self.dropout = nn.Dropout(dropout)
        self.linear = output_layer(features.dim, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, *features.shape)`` to ``(B, outputs)``."""
        outputs: Tensor = self.linear(self.dropout(self.pool(features)))
        return outputs
