"""A linear answer for every position of a map."""

from typing import Annotated

import torch
from torch import Tensor, nn

from headstart.backbones.contract import FeatureSpec
from headstart.backbones.maps import maps_of
from headstart.heads.layers import OUTPUT_STD
from headstart.system.options import AtLeast, Below, checked
from headstart.tasks.segmentation import enlarged

_MOMENTUM = 0.1


class QuickBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose running statistics are plain means of the first ten batches.

    Started from 0 and 1 as usual they would be far off after a short training, most of all for small features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=1.0)
        self._batches = 0

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, h, w)`` to the same."""
        if self.training and self._batches < 1 / _MOMENTUM:
            assert self.num_batches_tracked is not None
            # Of a loaded norm it is known only here; later batches do without asking the device.
            self._batches = int(self.num_batches_tracked) + 1
            self.momentum = max(_MOMENTUM, 1 / self._batches)
        return super().forward(images)


class Dense(nn.Module):
    """BatchNorm and a 1x1 convolution over the maps of the backbone's last stages: the linear probe of segmentation.

    A 1x1 convolution over maps that were enlarged to one size and put behind each other is the sum of one over each
    map, enlarged afterwards; that is how it is done here, since the outputs have fewer channels.

    Reference: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024, section 7.4.

    Args:
        features: of the backbone, with its maps.
        outputs: one for each class.
        stages: how many of the backbone's last maps: of each resolution the last, or of a transformer its last blocks.
        dropout: share of the channels that are left out in training.
    """

    @checked("head")
    def __init__(
        self,
        features: FeatureSpec,
        outputs: int,
        *,
        stages: Annotated[int, AtLeast(1)] = 4,
        dropout: Annotated[float, AtLeast(0), Below(1)] = 0.0,
    ) -> None:
        super().__init__()
        self.maps, self.stages = features.maps, stages
        self.size = max((size[1:] for size in self.maps), key=lambda size: size[0] * size[1])
        self.norms = nn.ModuleList(QuickBatchNorm(channels) for channels, _, _ in self.maps)
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, outputs, 1, bias=False) for channels, _, _ in self.maps)
        for convolution in self.convolutions:
            nn.init.normal_(convolution.weight, std=OUTPUT_STD)  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, sum of C * h * w)`` to ``(B, outputs, h, w)`` at the size of the largest map."""
        outputs = self.bias[:, None, None]
        for one, norm, convolution in zip(maps_of(features, self.maps), self.norms, self.convolutions, strict=True):
            outputs = outputs + enlarged(convolution(self.dropout(norm(one))), self.size)
        return outputs
