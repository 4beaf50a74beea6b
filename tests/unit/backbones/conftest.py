"""Small backbones with random weights, built once a session; tests that change one build their own."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from headstart.backbones import Backbone, SmallCNN, TimmBackbone
from headstart.weights.sources import NO_WEIGHTS

KEEP = ("mobilenetv3_small_100", "convnext_atto")
NAMES = ("resnet18", "small_cnn", *KEEP, "vit_tiny_patch16_224")


def make(name: str) -> Backbone:
    torch.manual_seed(0)
    if name == "small_cnn":
        return SmallCNN(weights=NO_WEIGHTS)
    keep = "keep" if name in KEEP else "drop"
    backbone = TimmBackbone(name=name, weights=NO_WEIGHTS, image_size=(64, 64), pre_logits=keep)
    # Fresh networks multiply whole branches by 0 or 1e-6; a test must see what those do.
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter) * 0.5)
    return backbone


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Backbone]:
    return cache(make)


@pytest.fixture
def fresh() -> Callable[[str], Backbone]:
    return make


@pytest.fixture(params=NAMES)
def backbone(request: pytest.FixtureRequest, shared: Callable[[str], Backbone]) -> Backbone:
    return shared(request.param)


@pytest.fixture(params=NAMES)
def backbone_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
