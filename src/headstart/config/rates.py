"""How fast the backbone learns where the choice is left open: the one place that says so."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.weights.sources import ResolvedWeights

# Weights of ImageNet lose within a few steps what they know at the rate of a new head; a tenth of it is the usual first
# try. Smaller weights, such as the bundled ones, have less to lose, and of a file nothing is known.
_OF_IMAGENET = 0.1
_IMAGENET = frozenset({"package", "hub"})


def with_backbone_rate(config: Mapping[str, Any], weights: "ResolvedWeights") -> dict[str, Any]:
    """A plain configuration with a number in the place of ``strategy.backbone_lr_mult=auto``."""
    strategy = dict(config["strategy"])
    if strategy.get("backbone_lr_mult") == "auto":
        strategy["backbone_lr_mult"] = _OF_IMAGENET if weights.kind in _IMAGENET else 1.0
    return {**config, "strategy": strategy}
