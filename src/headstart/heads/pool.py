"""From a backbone's features to one vector per image."""

import torch
from torch import Tensor, nn

from headstart.backbones.contract import FeatureSpec
from headstart.backbones.maps import maps_of


class Pool(nn.Module):
    """Mean over positions, or the class token, as the features ask for; of several maps the mean of each."""

    def __init__(self, features: FeatureSpec) -> None:
        super().__init__()
        self.layout, self.pool, self.prefix_tokens = features.layout, features.pool, features.prefix_tokens
        self._maps, self._length = features.maps, features.shape[0]

    def forward(self, features: Tensor) -> Tensor:
        """``(B, *features.shape)`` to ``(B, C)``; vectors that were pooled before stay as they are."""
        if self._maps and features.shape[1] == self._length:
            return torch.cat([one.mean(dim=(2, 3)) for one in maps_of(features, self._maps)], dim=1)
        if features.ndim == 2:
            return features
        if self.layout == "NCHW":
            return features.mean(dim=(2, 3))
        if self.layout == "NHWC":
            return features.mean(dim=(1, 2))
        if self.layout == "NLC":
            return features[:, 0] if self.pool == "token" else features[:, self.prefix_tokens :].mean(dim=1)
        return features
