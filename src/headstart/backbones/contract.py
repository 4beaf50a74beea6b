"""The backbone contract: an ordered list of stages that ends in a feature map."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from headstart.data.input_spec import InputSpec

Layout = Literal["NCHW", "NHWC", "NLC", "NC"]


@dataclass(frozen=True)
class FeatureSpec:
    """The features a backbone ends in, as a head needs to know them.

    Attributes:
        dim: number of feature channels.
        shape: one sample's features without the batch axis: ``(C, H, W)``, ``(H, W, C)``, ``(L, C)`` or ``(C,)``.
        layout: where batch, channels and positions are.
        pool: how positions become one vector: the mean of all, or the class token (``NLC`` only).
        prefix_tokens: tokens before the patch tokens (``NLC`` only); the mean leaves them out.
    """

    dim: int
    shape: tuple[int, ...]
    layout: Layout
    pool: Literal["avg", "token"] = "avg"
    prefix_tokens: int = 0


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


@dataclass(frozen=True)
class WeightsReport:
    """Where a backbone's parameters came from; printed, logged and written to ``result.json``.

    Attributes:
        source: ``hub:<name>``, ``bundled:<file>``, ``none`` or the path as given.
        sha256: digest of the weights file; for ``none`` the empty string.
        matched: number of backbone tensors that were loaded.
        missing: backbone tensors that the file did not have.
        unexpected: tensors of the file that the backbone does not have (a dropped classifier is not listed).
        classes: class names of the source task, in the order of the source classifier's rows, if known.
        licence: of the weights, if known.
        notes: what else a reader must know (a prefix that was stripped, channels that were adapted).
    """

    source: str
    sha256: str = ""
    matched: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    licence: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceClassifier:
    """The classifier of the source task, for methods that need it (LEEP, Co-Tuning).

    Attributes:
        weight: ``(source classes, C)`` with C = the pooled feature dimension.
        bias: ``(source classes,)``.
    """

    weight: Tensor
    bias: Tensor


class Backbone(nn.Module, ABC):
    """A pretrained network without its classifier.

    Attributes set by every implementation:
        name: of the network, as the user gave it.
        input_spec: what the weights expect; the datamodule follows it.
        features: what :meth:`forward_features` returns for one sample of ``input_spec``'s shape.
        stages: in the order of the forward pass; together they own every parameter and buffer once.
        weights: where the parameters came from.
        source_classifier: of the weights, where there is one.
    """

    name: str
    input_spec: InputSpec
    features: FeatureSpec
    stages: tuple[Stage, ...]
    weights: WeightsReport
    source_classifier: SourceClassifier | None

    @abstractmethod
    def forward_features(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` images to features ``(B, *features.shape)``."""

    def forward(self, images: Tensor) -> Tensor:
        """The same as :meth:`forward_features`."""
        return self.forward_features(images)

    @property
    def feature_dim(self) -> int:
        """Number of feature channels."""
        return self.features.dim
