"""Adapters start at the pretrained function, belong to stages, and fold into the weights."""

import pytest
import torch
from torch import nn

pytest.importorskip("peft")

from headstart.backbones import TimmBackbone
from headstart.errors import ConfigError
from headstart.heads import Linear
from headstart.model.transfer_model import TransferModel
from headstart.strategies import LoRA
from headstart.strategies.lora import target_layers
from headstart.weights.sources import NO_WEIGHTS

NETWORKS = {
    "resnet18": {"layers": [1, 1, 1, 1]},
    "vit_tiny_patch16_224": {"depth": 2},
    "mobilenetv3_small_100": {},
}


def network(name: str) -> TransferModel:
    torch.manual_seed(0)
    backbone = TimmBackbone(name=name, weights=NO_WEIGHTS, image_size=(32, 32), **NETWORKS[name])
    return TransferModel(backbone, Linear(backbone.features, 3)).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_lora_starts_exactly_at_the_pretrained_function_and_merges_exactly(name):
    model = network(name)
    state, images = {k: v.clone() for k, v in model.state_dict().items()}, torch.randn(2, 3, 32, 32)
    before, stages = model(images), model.backbone.stages
    strategy = LoRA(rank=2)
    strategy.prepare(model, None)
    assert torch.equal(model(images), before)

    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if ".lora_" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    adapted = model(images)
    assert not torch.allclose(adapted, before, rtol=0.1, atol=0)
    strategy.merge(model)
    torch.testing.assert_close(model(images), adapted, rtol=1e-4, atol=1e-6)
    assert model.state_dict().keys() == state.keys()
    assert model.backbone.stages == stages


@pytest.mark.parametrize("name", NETWORKS)
def test_every_adapter_belongs_to_the_stage_of_its_layer(name):
    model = network(name)
    strategy = LoRA(rank=2)
    strategy.prepare(model, None)
    info = model.describe()
    owned = [parameter.name for stage in info.stages for parameter in stage.parameters]
    assert sorted(owned) == sorted(name for name, _ in model.named_parameters())
    modules = {module for stage in model.backbone.stages for module in stage.modules}
    assert modules == {module for module, _ in model.backbone.named_modules() if module}
    (phase,) = strategy.phases(info, max_epochs=1)
    assert all(".lora_" in parameter or parameter.startswith("head.") for parameter in phase.learning)
    base = next(s for s in info.backbone_stages if any(".lora_" in p.name for p in s.parameters))
    layers = {p.name.split(".lora_")[0] for p in base.parameters if ".lora_" in p.name}
    assert all(any(p.name.startswith(f"{layer}.base_layer.") for p in base.parameters) for layer in layers)


def test_restoring_gives_a_checkpoint_its_place():
    trained = network("resnet18")
    LoRA(rank=2).prepare(trained, None)
    rebuilt = network("resnet18")
    strategy = LoRA(rank=2)
    strategy.restore(rebuilt)
    missing, unexpected = rebuilt.load_state_dict(trained.state_dict(), strict=False)
    assert (missing, unexpected) == ([], [])


def test_layers_are_chosen_by_kind():
    backbone = network("vit_tiny_patch16_224").backbone
    linear = target_layers(backbone, ["linear"])
    attention = target_layers(backbone, ["attention"])
    assert {name.rpartition(".")[2] for name in attention} == {"qkv", "proj"}
    assert set(attention) < set(linear)
    assert target_layers(backbone, ["conv"]) == ("network.patch_embed.proj",)


def test_layers_that_cannot_take_an_adapter_are_left_out():
    backbone = network("mobilenetv3_small_100").backbone
    chosen = target_layers(backbone, ["conv"])
    groups = {name: m.groups for name, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
    assert max(groups.values()) > 1
    assert {groups[name] for name in chosen} == {1}
    with pytest.raises(ConfigError, match="no such layers"):
        LoRA(targets=("attention",)).restore(TransferModel(backbone, nn.Identity()))


def test_layers_whose_weights_are_used_without_a_call_are_left_out():
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unseen = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.used(x), self.unseen.weight)

    model = network("resnet18")
    backbone = model.backbone
    backbone.network.extra = Direct()
    original = backbone.forward_features
    backbone.forward_features = lambda images: backbone.network.extra(images.mean(dim=(2, 3))).sum() + original(images)
    chosen = target_layers(backbone, ["linear"])
    assert chosen == ("network.extra.used",)
