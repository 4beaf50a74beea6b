"""One linear layer on pooled features."""

from torch import Tensor, nn

from headstart.backbones.contract import FeatureSpec
from headstart.heads.layers import dropout_layer, output_layer
from headstart.heads.pool import Pool


class Linear(nn.Module):
    """Pool, dropout, one linear layer: the classifier that most networks were pretrained with.

    Args:
        features: what the backbone ends in.
        outputs: number of outputs.
        dropout: probability that a pooled feature is dropped in training.
    """

    def __init__(self, features: FeatureSpec, outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.pool = Pool(features)
        self.dropout = dropout_layer(dropout)
        self.linear = output_layer(features.dim, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, *features.shape)`` to ``(B, outputs)``."""
        outputs: Tensor = self.linear(self.dropout(self.pool(features)))
        return outputs
