"""A small convolutional network for training from scratch on small images."""

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from headstart.backbones.contract import Backbone, FeatureSpec, Stage
from headstart.backbones.timm_network import with_channels
from headstart.data.input_spec import InputSpec
from headstart.errors import ConfigError
from headstart.system.options import AtLeast, FromCode, NotInResult
from headstart.weights import cards, loading
from headstart.weights.report import SourceClassifier, WeightsReport
from headstart.weights.sources import ResolvedWeights

# Pixel values between 0 and 1, the whole image, nothing else.
_INPUT = InputSpec(height=64, width=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop_pct=1.0, crop_mode="squash")
_SMALLEST = 10


class SmallCNN(Backbone):
    """Conv 32 3x3, ReLU, MaxPool 2, Conv 64 3x3, ReLU, MaxPool 2, without padding: 64x14x14 of a 64x64 image.

    There are no weights of it but those of an own earlier run.

    Raises:
        ConfigError: the images are too small.
        WeightsError: the weights are damaged or of another network.
    """

    def __init__(
        self,
        *,
        name: str = "small_cnn",
        weights: ResolvedWeights,
        in_channels: Annotated[int, AtLeast(1)] = 3,
        image_size: Annotated[tuple[int, int] | None, FromCode] = None,
        allow_unexpected: Annotated[Sequence[str], NotInResult] = (),
    ) -> None:
        super().__init__()
        self.name = name
        given = cards.input_spec(weights.card) or _INPUT
        if weights.path is not None:
            cards.check_architecture(weights.card, name, weights.source)
        height, width = image_size or (given.height, given.width)
        if min(height, width) < _SMALLEST:
            raise ConfigError(
                f"datamodule.image_size={height}x{width} is too small for {name}; give {_SMALLEST} or more"
            )
        spec = InputSpec.from_dict({**given.as_dict(), "height": height, "width": width})
        self.input_spec = with_channels(spec, in_channels)
        self.conv1 = nn.Conv2d(in_channels, 32, 3)
        self.act1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.act2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        shape = (64, _after(_after(height)), _after(_after(width)))
        self.features = FeatureSpec(64, shape, "NCHW")
        self.stages = tuple(
            Stage(
                name=f"block{number}",
                parameters=(f"conv{number}.weight", f"conv{number}.bias"),
                modules=(f"conv{number}", f"act{number}", f"pool{number}"),
                end=f"pool{number}",
            )
            for number in (1, 2)
        )
        self.source_classifier: SourceClassifier | None = None
        if weights.path is None:
            self.weights = WeightsReport("none", notes=("random weights",))
        else:
            loaded = loading.load_file(self, weights, allow_unexpected)
            self.weights = loading.report(weights, loaded, self.state_dict())
            self.source_classifier = loading.classifier_beside(weights.path, weights.card)

    def forward_features(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` images to ``(B, 64, H', W')``."""
        x = self.pool1(self.act1(self.conv1(images)))
        features: Tensor = self.pool2(self.act2(self.conv2(x)))
        return features


def _after(size: int) -> int:
    """Rows or columns after one unpadded 3x3 convolution and halving."""
    return (size - 2) // 2
