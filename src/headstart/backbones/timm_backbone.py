"""Any timm network as a backbone."""

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from headstart.backbones.contract import Backbone, FeatureSpec, Layout
from headstart.backbones.stages import build_stages, renamed
from headstart.backbones.timm_network import build_network, check_network, input_spec_of, prune
from headstart.backbones.trace import Trace, trace
from headstart.errors import ConfigError
from headstart.system.options import AtLeast, FromCode, NotInResult, checked
from headstart.weights import loading
from headstart.weights.report import WeightsReport
from headstart.weights.sources import ResolvedWeights

_log = logging.getLogger(__name__)


class TimmBackbone(Backbone):
    """A network of timm without its classifier, ending in its feature map.

    ``network`` is the timm model itself; where nothing is dropped, its state dict loads into
    ``timm.create_model(name, num_classes=0)``.

    Args:
        name: as timm knows it, with or without a tag.
        weights: resolved, see :func:`headstart.weights.sources.resolve_weights`.
        in_channels: number of image channels; pretrained first convolutions are adapted.
        image_size: ``(height, width)``; by default what the weights were trained with.
        pre_logits: ``keep`` appends the pretrained layers between feature map and classifier (VGG's fc6 and fc7,
            MobileNet's conv_head, ConvNeXt's norm) as a last stage; the features are then one vector an image.
        allow_unexpected: patterns of names of surplus tensors in the weights file that may be left out.
        options: further arguments of the timm model (``drop_path_rate``).

    Raises:
        ConfigError: timm has no such network, or it cannot be used as asked.
        WeightsError: the weights are damaged, of another network or unreachable.
    """

    @checked("backbone")
    def __init__(
        self,
        *,
        name: str,
        weights: ResolvedWeights,
        in_channels: Annotated[int, AtLeast(1)] = 3,
        image_size: Annotated[tuple[int, int] | None, FromCode] = None,
        pre_logits: Literal["keep", "drop"] = "drop",
        allow_unexpected: Annotated[Sequence[str], NotInResult] = (),
        **options: Any,
    ) -> None:
        super().__init__()
        check_network(name, weights)
        self.name = name
        identifier = weights.hub.name if weights.hub is not None else name
        self.input_spec = input_spec_of(identifier, weights, channels=in_channels, image_size=image_size)
        built = build_network(identifier, weights, self.input_spec, options, allow_unexpected=allow_unexpected)
        self.network: Any = built.network
        self._keeps_pre_logits = self._cut_short = False
        self._cut_to_features(keep=pre_logits == "keep")
        if built.loaded is None:
            self.weights = WeightsReport("none", notes=("random weights",))
        else:
            self.weights = loading.report(weights, built.loaded, self.network.state_dict())
        # A classifier over other features than these is of no use to anyone.
        classifier = built.classifier
        fits = classifier is not None and classifier.weight.shape[1] == self.features.dim
        self.source_classifier = classifier if fits and not self._cut_short else None

    def forward_features(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` images to features ``(B, *features.shape)``."""
        features: Tensor = self.network.forward_features(images)
        return _pooled(self.network, features) if self._keeps_pre_logits else features

    def _cut_to_features(self, *, keep: bool) -> None:
        """Drop what is not needed for the features, then describe what is left: stages and feature shape."""
        network = self.network
        network.reset_classifier(0)
        shape = self.input_spec.shape
        in_map = _traced(self.name, network, lambda model, images: model.forward_features(images), shape)
        whole = in_map
        if in_map.output is None or {name for name, _ in network.named_parameters()} - in_map.used:
            whole = _traced(
                self.name, network, lambda model, images: _pooled(model, model.forward_features(images)), shape
            )
        between = whole.used - in_map.used
        # Where the features are several tensors, the network itself must say how they become one.
        self._keeps_pre_logits = in_map.output is None or (keep and bool(between))
        kept = whole if self._keeps_pre_logits else in_map
        self._cut_short = bool(between) and not self._keeps_pre_logits
        if self._cut_short:
            names = sorted({name.rpartition(".")[0] for name in between})
            _log.info("%s without its pretrained %s; backbone.pre_logits=keep has them", self.name, ", ".join(names))
        prune(network, kept)
        # The names of parameters are those of `network`, so the stages are made there and then renamed.
        stages = build_stages(network, kept, pre_logits=between if self._keeps_pre_logits else frozenset())
        self.stages = renamed(stages, lambda name: f"network.{name}" if name else "network")
        self.features = _feature_spec(self.name, network, kept)


def _pooled(network: Any, features: Any) -> Tensor:
    """Feature map to the vectors that the classifier was trained on, ``(B, C)``."""
    vectors: Tensor
    if "pre_logits" in _arguments(type(network).forward_head):
        vectors = network.forward_head(features, pre_logits=True)
    else:
        # Without a classifier nothing follows these layers.
        vectors = network.forward_head(features)
    return vectors


@cache
def _arguments(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _traced(name: str, network: nn.Module, forward: Any, shape: tuple[int, int, int]) -> Trace:
    try:
        return trace(network, forward, shape)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        size = "x".join(map(str, shape))
        raise ConfigError(
            f"backbone.name={name} cannot take {size} images: {error}; choose another datamodule.image_size"
        ) from error


def _feature_spec(name: str, network: Any, run: Trace) -> FeatureSpec:
    shape = run.output
    if shape is None or len(shape) not in {1, 2, 3}:
        raise ConfigError(f"backbone.name={name}: its features are not one tensor with channels and positions")
    if len(shape) == 1:
        return FeatureSpec(shape[0], shape, "NC")
    channels = network.num_features
    if len(shape) == 2:
        if shape[1] != channels:
            raise ConfigError(f"backbone.name={name}: features {shape} have no last axis of {channels} channels")
        prefix = getattr(network, "num_prefix_tokens", 0)
        token = prefix > 0 and getattr(network, "global_pool", "avg") == "token"
        return FeatureSpec(channels, shape, "NLC", "token" if token else "avg", prefix)
    layout: Layout = "NHWC" if getattr(network, "output_fmt", "NCHW") == "NHWC" or shape[0] != channels else "NCHW"
    if channels not in {shape[0], shape[2]}:
        raise ConfigError(f"backbone.name={name}: features {shape} have no axis of {channels} channels")
    return FeatureSpec(channels, shape, layout)
