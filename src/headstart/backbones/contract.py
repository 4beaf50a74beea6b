"""The backbone contract: an ordered list of stages that ends in a feature map."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from headstart.data.input_spec import InputSpec
from headstart.weights.report import SourceClassifier, WeightsReport

Layout = Literal["NCHW", "NHWC", "NLC", "NC"]

# What keeps running statistics: torch has no public name for what all its batch and instance norms are.
RunningNorm = nn.modules.batchnorm._NormBase


@dataclass(frozen=True)
class FeatureSpec:
    """The features a backbone ends in, as a head needs to know them.

    Attributes:
        dim: number of feature channels.
        shape: one sample's features without the batch axis: ``(C, H, W)``, ``(H, W, C)``, ``(L, C)`` or ``(C,)``.
        layout: where batch, channels and positions are.
        pool: how positions become one vector: the mean of all, or the class token (``NLC`` only).
        prefix_tokens: tokens before the patch tokens (``NLC`` only); the mean leaves them out.
        maps: ``(C, h, w)`` of each map where several lie in one row (:mod:`headstart.backbones.maps`); ``dim`` is then
            the sum of their channels, and ``layout`` what the network itself has.
    """

    dim: int
    shape: tuple[int, ...]
    layout: Layout
    pool: Literal["avg", "token"] = "avg"
    prefix_tokens: int = 0
    maps: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Stage:
    """One coarse block of a backbone.

    Attributes:
        name: short and unique within the backbone (``stem``, ``layer1``, ``block3``).
        parameters: full parameter names within the backbone; every parameter is in exactly one stage.
        buffers: full buffer names within the backbone; every buffer is in exactly one stage.
        modules: names of the modules whose mode follows this stage, those without parameters included.
        end: name of the module whose output is the stage's output, or None where there is no such module.
    """

    name: str
    parameters: tuple[str, ...]
    buffers: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    end: str | None = None


class Backbone(nn.Module, ABC):
    """A pretrained network without its classifier.

    Attributes set by every implementation:
        name: of the network, as the user gave it.
        input_spec: what the weights expect; the datamodule follows it.
        features: what calling the backbone returns for one sample of ``input_spec``'s shape.
        stages: in the order of the forward pass; together they own every parameter and buffer once.
        weights: where the parameters came from.
        source_classifier: of the weights, where there is one.
        gathered: what takes the place of :meth:`forward_features`; set by :func:`headstart.backbones.maps.gather`.
    """

    name: str
    input_spec: InputSpec
    features: FeatureSpec
    stages: tuple[Stage, ...]
    weights: WeightsReport
    source_classifier: SourceClassifier | None
    gathered: Callable[["Backbone", Tensor], Tensor] | None = None

    @abstractmethod
    def forward_features(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` images to the map that the network ends in, ``(B, ...)``."""

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` images to features ``(B, *features.shape)``: as a rule :meth:`forward_features`."""
        return self.forward_features(images) if self.gathered is None else self.gathered(self, images)

    @property
    def feature_dim(self) -> int:
        """Number of feature channels."""
        return self.features.dim
