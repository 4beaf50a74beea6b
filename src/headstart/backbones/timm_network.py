"""Building a timm network with its weights, and what those expect of their input."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from headstart.backbones.trace import Trace
from headstart.data.input_spec import InputSpec
from headstart.errors import ConfigError, WeightsError
from headstart.system.digest_memory import digest_file
from headstart.weights import cards
from headstart.weights import loading as weights
from headstart.weights.report import SourceClassifier
from headstart.weights.sources import SUFFIXES, ResolvedWeights


@dataclass(frozen=True)
class BuiltNetwork:
    """A timm model with its weights, its classifier still in place.

    Attributes:
        network: the model.
        loaded: what became of the weights file; None for random weights.
        classifier: of the source task.
    """

    network: Any
    loaded: weights.Loaded | None
    classifier: SourceClassifier | None


def build_network(
    name: str,
    source: ResolvedWeights,
    spec: InputSpec,
    options: Mapping[str, Any],
    *,
    allow_unexpected: Sequence[str] = (),
) -> BuiltNetwork:
    """The timm model ``name`` with its weights.

    Raises:
        ConfigError: the network cannot be made as asked.
        WeightsError: the weights are damaged, of another network or unreachable.
    """
    arguments = creation_arguments(name, spec, options)
    if source.kind == "hub":
        return _from_hub(name, source, arguments)
    network = _create(name, arguments)
    if source.kind == "none":
        return BuiltNetwork(network, None, None)
    assert source.path is not None
    loaded = weights.load_file(network, source, allow_unexpected)
    return BuiltNetwork(network, loaded, loaded.classifier or weights.classifier_beside(source.path, source.card))


def check_network(name: str, source: ResolvedWeights) -> None:
    """Refuse a network that timm does not have, and weights whose card names another one.

    Raises:
        ConfigError: timm has no network of this name.
        WeightsError: the card of the weights names another network.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() shows all names"
        raise ConfigError(f"backbone.name={name}: timm has no such network; {hint}")
    if name != architecture and name not in timm.list_pretrained():
        raise ConfigError(
            f"backbone.name={name}: timm knows {architecture}, but no such tag of it; its tags: "
            f"{', '.join(timm.list_pretrained(f'{architecture}.*')) or 'none'}"
        )
    cards.check_architecture(source.card, name, source.source)


def strict_in_timm(name: str, spec: InputSpec, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """How plain timm makes the network that a backbone's tensors are of, and whether it loads them strictly."""
    architecture = name.partition(".")[0]
    arguments = {"num_classes": 0, **creation_arguments(architecture, spec, {})}
    try:
        with torch.device("meta"):
            wanted = _create(architecture, arguments).state_dict()
    except RuntimeError:  # an older timm reads numbers while it builds some networks
        wanted = _create(architecture, arguments).state_dict()
    missing = [key for key in wanted if key not in state]
    fits = all(key in wanted and wanted[key].shape == tensor.shape for key, tensor in state.items())
    given = ", ".join(f"{key}={value}" for key, value in arguments.items())
    return {
        "version": timm.__version__,
        "create": f"timm.create_model({architecture!r}, {given})",
        "strict": fits and not missing,
        "missing": missing,
    }


def input_spec_of(
    name: str, source: ResolvedWeights, *, channels: int, image_size: tuple[int, int] | None
) -> InputSpec:
    """What the weights expect, with the asked channels and size."""
    if channels < 1:
        raise ConfigError(f"backbone.in_channels={channels} is not a number of channels")
    spec = cards.input_spec(source.card) or _timm_spec(name)
    if image_size is not None:
        spec = replace(spec, height=image_size[0], width=image_size[1])
    return with_channels(spec, channels)


def with_channels(spec: InputSpec, channels: int) -> InputSpec:
    """The same input with another number of channels: means and deviations are averaged or repeated."""

    def fitted(values: tuple[float, ...]) -> tuple[float, ...]:
        if channels == 1:
            return (sum(values) / len(values),)
        return tuple(values[c % len(values)] for c in range(channels))

    if channels == spec.channels:
        return spec
    return replace(spec, channels=channels, mean=fitted(spec.mean), std=fitted(spec.std))


def prune(network: nn.Module, trace: Trace) -> None:
    """Replace parts with parameters that the traced forward pass neither calls nor uses."""
    # By identity, since a part can be known by several names.
    called = {id(network.get_submodule(call.module)) for call in trace.calls}
    used = {id(parameter) for name, parameter in network.named_parameters() if name in trace.used}

    def visit(parent: nn.Module) -> None:
        for name, child in list(parent.named_children()):
            held = {id(parameter) for parameter in child.parameters()}
            idle = held and held.isdisjoint(used) and called.isdisjoint(id(module) for module in child.modules())
            if idle:
                setattr(parent, name, nn.Identity())
            else:
                visit(child)

    visit(network)


def _timm_spec(name: str) -> InputSpec:
    config = get_pretrained_cfg(name)
    values = resolve_data_config({}, pretrained_cfg=config.to_dict() if config is not None else {"input_size": None})
    channels, height, width = values["input_size"]
    return InputSpec(
        channels=channels,
        height=height,
        width=width,
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        interpolation=values["interpolation"],
        crop_pct=values["crop_pct"],
        crop_mode=values["crop_mode"],
    )


def creation_arguments(name: str, spec: InputSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """What ``timm.create_model`` needs besides the name for such images, ``options`` included."""
    arguments = {key: value for key, value in options.items() if value is not None}
    config = get_pretrained_cfg(name)
    given = config.input_size if config is not None else (3, 224, 224)
    if spec.channels != given[0]:
        arguments["in_chans"] = spec.channels
    if config is not None and config.fixed_input_size and (spec.height, spec.width) != tuple(given[1:]):
        arguments.setdefault("img_size", (spec.height, spec.width))
    return arguments


def _create(name: str, arguments: Mapping[str, Any], **more: Any) -> Any:
    try:
        return timm.create_model(name, **arguments, **more)
    except (TypeError, ValueError, AssertionError) as error:
        given = ", ".join(f"{key}={value}" for key, value in arguments.items()) or "its defaults"
        reason = str(error) or type(error).__name__
        raise ConfigError(f"backbone.name={name}: timm cannot make it with {given}: {reason}") from error


def _from_hub(name: str, source: ResolvedWeights, arguments: Mapping[str, Any]) -> BuiltNetwork:
    """Weights that timm itself offers, converted by its own code; it loads them strictly."""
    path = weights.fetch(source)
    loaded = weights.Loaded(path, source.sha256 or digest_file(path))
    if path.suffix in SUFFIXES:
        state = weights.unwrapped(weights.read_state(path), path)
        overlay: dict[str, Any] = {"state_dict": state}
    else:
        # Formats of other frameworks, which the network reads itself.
        overlay = {"file": str(path), "custom_load": True}
    try:
        network = _create(name, arguments, pretrained=True, pretrained_cfg_overlay=overlay)
    except RuntimeError as error:
        raise WeightsError(f"{source.source} ({path}) does not fit {name}: {error}; the download is damaged") from error
    network.pretrained_cfg.pop("state_dict", None)
    loaded.keys = frozenset(network.state_dict())
    modules = dict(network.named_modules())
    held = {
        f"{key}.{part}": tensor.detach().clone()
        for key in weights.classifier_names(network)
        if key in modules
        for part, tensor in modules[key].named_parameters(recurse=False)
    }
    return BuiltNetwork(network, loaded, weights.take_classifier(held, weights.classifier_names(network)))
