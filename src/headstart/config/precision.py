"""``trainer.precision=auto`` on a CPU that multiplies bfloat16: by what the network is made of and what it does.

Milliseconds an image at 224 px, channels last, on a CPU with AMX:

==================  =============  ============
two cores           training       forward
..                  bf16     fp32  bf16    fp32
==================  =============  ============
ResNet-18             16       39   4.0    11.9
EfficientNet-Lite0    66       49   6.9    11.2
MobileNetV3-small     15        9   1.7     1.9
==================  =============  ============

The gradient of a depthwise convolution is slower in bfloat16 than in float32, by more than everything else gains.

On one with AVX512_BF16 and no AMX, where ``auto`` is float32 for all:

==================  =============  ============
two cores           training       forward
..                  bf16     fp32  bf16    fp32
==================  =============  ============
ResNet-18             67       42  21.3    12.7
ResNet-50            170      139  53.5    39.6
EfficientNet-Lite0    84       58  12.5    17.1
EfficientNet-Lite2   106       70  13.4    12.7
MobileNetV3-small     18        8   1.8     1.6
ConvNeXt-Atto         46       26  10.8     7.8
ViT-Tiny              65       37  19.3    12.2
==================  =============  ============
"""

import re
from collections.abc import Mapping
from typing import Any

from headstart.strategies import Strategy

# The beginnings of timm's names of networks that consist of inverted residuals, so mostly of depthwise convolutions.
_DEPTHWISE = re.compile(
    r"(tf_)?(efficientnet|mobilenet|mixnet)|semnasnet|mnasnet|spnasnet|fbnet|hardcorenas|tinynet|lcnet|ghostnet"
)


def trains_depthwise(config: Mapping[str, Any], strategy: Strategy | None) -> bool:
    """Whether gradients go through a network of depthwise convolutions; a frozen one has forward passes only."""
    name = str(config["backbone"].get("name") or "").rpartition("/")[2]
    return _DEPTHWISE.match(name) is not None and not (strategy is not None and strategy.only_head_learns)
