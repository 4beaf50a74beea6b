"""``trainer.precision=auto`` on a CPU depends on the network and on what is done with it."""

import pytest
import timm
import torch
from torch import nn

from headstart.config import compose, resolve_run
from headstart.config.precision import trains_depthwise
from headstart.strategies import Freeze, Full
from headstart.system.hardware import Hardware, assumed


def resolved(*overrides: str):
    with assumed(Hardware(cpu_bf16=True, cores=2)):
        return resolve_run(compose(["trainer=cpu", *overrides]))


@pytest.mark.parametrize(
    ("backbone", "strategy", "precision"),
    [
        ("efficientnet_lite0", "freeze", "bf16-mixed"),
        ("efficientnet_lite0", "full", "32-true"),
        ("efficientnet_lite0", "partial", "32-true"),
        ("efficientnet_lite0", "scratch", "32-true"),
        ("mobilenetv3_small_100", "lora", "32-true"),
        ("resnet18", "full", "bf16-mixed"),
        ("small_cnn", "scratch", "bf16-mixed"),
    ],
)
def test_gradients_of_depthwise_convolutions_are_computed_in_full(backbone: str, strategy: str, precision: str):
    weights = [] if strategy == "scratch" else ["backbone.weights=none"]
    choices = [f"backbone={backbone}", f"strategy={strategy}", *weights]
    assert resolved(*choices).settings.trainer.precision == precision


def test_what_was_asked_for_is_kept():
    run = resolved("backbone=efficientnet_lite0", "strategy=full", "trainer.precision=bf16-mixed")
    assert run.settings.trainer.precision == "bf16-mixed"


@pytest.mark.parametrize(
    ("name", "depthwise"),
    [
        ("tf_efficientnet_lite0", True),
        ("efficientnet_b0", True),
        ("mobilenetv2_050", True),
        ("mobilenetv4_conv_small_035", True),
        ("mnasnet_small", True),
        ("tinynet_e", True),
        ("lcnet_035", True),
        ("resnet18", False),
        ("resnext26ts", False),
        ("vit_tiny_patch16_224", False),
        ("vgg11", False),
    ],
)
def test_names_say_what_a_network_is_made_of(name: str, depthwise: bool):
    try:
        with torch.device("meta"):
            network = timm.create_model(name)
    except RuntimeError:  # older versions of timm read numbers while they build
        network = timm.create_model(name)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    share = sum(1 < layer.groups == layer.in_channels for layer in layers) / len(layers)
    assert (share > 0.1) is depthwise
    for asked in (name, f"hf-hub:timm/{name}"):
        assert trains_depthwise({"backbone": {"name": asked}}, Full()) is depthwise
        assert not trains_depthwise({"backbone": {"name": asked}}, Freeze())
