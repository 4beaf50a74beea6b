"""Which weights a run uses, decided once per command: ``auto`` means the same for every run of a study."""

import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from headstart.system.digests import digest

if TYPE_CHECKING:
    from headstart.weights.sources import ResolvedWeights

# What a card says about preprocessing; the rest of it changes no result.
_INPUT = ("input_spec", "input_size", "mean", "std", "interpolation", "crop", "crop_pct", "crop_mode")


def resolve_backbone_weights(config: Mapping[str, Any], *, scratch: bool) -> "ResolvedWeights":
    """The weights of the configured backbone; for a run from scratch those that it replaces, marked as unused.

    Raises:
        WeightsError: they are not to be had.
    """
    backbone = config["backbone"]
    return _resolve(str(backbone.get("name", "")), str(backbone.get("weights", "auto")), scratch)


def weights_content(weights: "ResolvedWeights") -> dict[str, Any]:
    """What of the weights changes the result: their bytes and their preprocessing, wherever the file lies.

    The hub's are named by network and tag, which stand for both, whether they are downloaded yet or not.
    """
    if weights.kind == "hub":
        return {"source": weights.source}
    return {"sha256": weights.sha256, "input": {key: weights.card[key] for key in _INPUT if key in weights.card}}


def decided_variable(name: str) -> str:
    """The environment variable that tells other processes what ``auto`` became for network ``name``."""
    return f"HEADSTART_AUTO_WEIGHTS_{digest(name)[:12]}"


@cache
def _resolve(name: str, weights: str, scratch: bool) -> "ResolvedWeights":
    from headstart.weights.sources import resolve_weights

    if weights != "auto" or scratch:
        return resolve_weights(name, weights, scratch=scratch)
    # The processes that this one starts (other ranks, other jobs) must not decide anew: the network may have gone.
    decided = decided_variable(name)
    resolved = resolve_weights(name, os.environ.get(decided, "auto"))
    os.environ[decided] = resolved.choice
    return resolved
