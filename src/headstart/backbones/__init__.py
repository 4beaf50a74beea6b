"""Backbones: pretrained networks without their classifier, as ordered lists of stages.

Importing this package needs no torch; the networks are imported when first named.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.backbones.contract import Backbone, FeatureSpec, Stage
    from headstart.backbones.small_cnn import SmallCNN
    from headstart.backbones.timm_backbone import TimmBackbone
    from headstart.weights.report import SourceClassifier, WeightsReport

__all__ = [
    "Backbone",
    "FeatureSpec",
    "SmallCNN",
    "SourceClassifier",
    "Stage",
    "TimmBackbone",
    "WeightsReport",
]

_MODULES = {"SmallCNN": "small_cnn", "TimmBackbone": "timm_backbone"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'contract')}"), name)
