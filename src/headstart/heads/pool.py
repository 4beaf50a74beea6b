"""From a backbone's features to one vector per image."""

from torch import Tensor, nn

from headstart.backbones.contract import FeatureSpec


class Pool(nn.Module):
    """Mean over positions, or the class token, as the features ask for."""

    def __init__(self, features: FeatureSpec) -> None:
        super().__init__()
        self.layout, self.pool, self.prefix_tokens = features.layout, features.pool, features.prefix_tokens

    def forward(self, features: Tensor) -> Tensor:
        """``(B, *features.shape)`` to ``(B, C)``; vectors that were pooled before stay as they are."""
        if features.ndim == 2:
            return features
        if self.layout == "NCHW":
            return features.mean(dim=(2, 3))
        if self.layout == "NHWC":
            return features.mean(dim=(1, 2))
        if self.layout == "NLC":
            return features[:, 0] if self.pool == "token" else features[:, self.prefix_tokens :].mean(dim=1)
        return features
