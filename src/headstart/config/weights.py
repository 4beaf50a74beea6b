"""Which weights a run uses, decided once per command: ``auto`` means the same for every run of a study."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.backbones.weights_source import ResolvedWeights


def resolve_backbone_weights(config: Mapping[str, Any], *, scratch: bool) -> "ResolvedWeights":
    """The weights of the configured backbone; for a run from scratch those that it replaces, marked as unused.

    Raises:
        WeightsError: they are not to be had.
    """
    backbone = config["backbone"]
    return _resolve(str(backbone.get("name", "")), str(backbone.get("weights", "auto")), scratch)


def weights_content(weights: "ResolvedWeights") -> dict[str, str]:
    """What of the weights changes the result: their bytes; of the hub's, which are versioned by name, the name."""
    source = str(weights.source)
    return {
        "source": source if source.startswith("hub:") else "",
        "sha256": "" if source.startswith("hub:") else weights.sha256,
    }


@cache
def _resolve(name: str, weights: str, scratch: bool) -> "ResolvedWeights":
    from headstart.backbones.weights_source import resolve_weights

    return resolve_weights(name, weights, scratch=scratch)
