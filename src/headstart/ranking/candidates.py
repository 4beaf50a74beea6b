"""Which networks are compared: those whose weights are to be had here. No torch here."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import yaml

from headstart.errors import ConfigError, WeightsError
from headstart.system.catalog import conf_dir, options
from headstart.system.hardware import detect
from headstart.system.names import override, suggestion
from headstart.weights.hub import hub_entry, hub_reachable
from headstart.weights.sources import resolve_weights

# Without weights of their own, or of any name.
_NOT_COMPARED = ("small_cnn", "timm")
# Their passes take minutes on a CPU; there they are compared when they are named.
_LARGE = ("convnext_tiny", "resnet50", "vgg16", "vit_small_patch16_224")


@dataclass(frozen=True)
class Candidate:
    """A network that could be used.

    Attributes:
        name: as it is chosen and shown: a backbone, with ``:weights`` where others than ``auto`` are asked for.
        overrides: what chooses it.
        absent: why it cannot be compared; empty where it can.
    """

    name: str
    overrides: tuple[str, ...]
    absent: str = ""


def default_candidates(probe: Callable[[], bool] = hub_reachable) -> list[Candidate]:
    """Every network of ``conf/backbone``, the absent ones with the reason.

    Args:
        probe: whether the hub can be reached.
    """
    names = [option.name for option in options("backbone", [conf_dir()]) if option.name not in _NOT_COMPARED]
    on_cpu = not detect().cuda and not detect().mps
    return [_default(name, probe, on_cpu=on_cpu) for name in names]


def families_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One network of each family, then the others: where time is short, different ones tell more than sisters."""
    families = [re.match("[a-z]*", candidate.name) for candidate in candidates]
    names = [family[0] if family else "" for family in families]
    places = sorted(range(len(names)), key=lambda place: names[:place].count(names[place]))
    return [candidates[place] for place in places]


def named_candidates(names: Sequence[str]) -> list[Candidate]:
    """Networks by name: of ``conf/backbone`` or of timm, each with ``:none`` or ``:PATH`` for other weights.

    Raises:
        ConfigError: none is named, or one twice.
    """
    known = [option.name for option in options("backbone", [conf_dir()])]
    found = [_named(name.strip(), known) for name in names if name.strip()]
    if not found:
        raise ConfigError(f"backbones= names no network; give some of: {', '.join(known)}")
    twice = {one.name for one in found if [other.name for other in found].count(one.name) > 1}
    if twice:
        raise ConfigError(f"backbones= names {', '.join(sorted(twice))} twice; leave one out")
    return found


def _default(name: str, probe: Callable[[], bool], *, on_cpu: bool) -> Candidate:
    overrides = (f"backbone={name}",)
    network = yaml.safe_load((conf_dir() / "backbone" / f"{name}.yaml").read_text(encoding="utf-8"))["name"]
    try:
        resolve_weights(network, "auto", probe=probe)
    except WeightsError as error:
        return Candidate(name, overrides, str(error).removeprefix("backbone.weights=auto: "))
    if on_cpu and name in _LARGE:
        return Candidate(name, overrides, f"slow without a GPU; backbones={name} compares it all the same")
    return Candidate(name, overrides)


def _named(given: str, known: Sequence[str]) -> Candidate:
    name, _, weights = given.partition(":")
    if name in known and name != "timm":
        chosen = [f"backbone={name}"]
    elif weights or hub_entry(name) is not None:
        chosen = ["backbone=timm", f"backbone.name={name}"]
    else:
        raise ConfigError(f"backbones={name} is no network of conf/backbone or timm{suggestion(name, known)}")
    return Candidate(given, (*chosen, *([override("backbone.weights", weights)] if weights else [])))
