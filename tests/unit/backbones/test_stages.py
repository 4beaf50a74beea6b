from collections.abc import Callable

import pytest
import torch
from torch import nn

from headstart.backbones import Backbone
from headstart.backbones.stages import build_stages
from headstart.backbones.trace import trace


def test_every_parameter_buffer_and_module_is_in_exactly_one_stage(backbone: Backbone) -> None:
    for owned, names in (
        ("parameters", [name for name, _ in backbone.named_parameters()]),
        ("buffers", [name for name, _ in backbone.named_buffers()]),
        ("modules", [name for name, _ in backbone.named_modules() if name]),
    ):
        assert sorted(name for stage in backbone.stages for name in getattr(stage, owned)) == sorted(names)


def test_names_are_unique_and_readable(shared: Callable[[str], Backbone]) -> None:
    def names(name: str) -> list[str]:
        return [stage.name for stage in shared(name).stages]

    assert names("resnet18") == ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert names("mobilenetv3_small_100") == ["stem", *(f"block{n}" for n in range(6)), "pre_logits"]
    assert names("convnext_atto") == ["stem", "stage0", "stage1", "stage2", "stage3", "pre_logits"]
    assert names("vit_tiny_patch16_224") == ["patch_embed", *(f"block{n}" for n in range(12))]
    assert names("small_cnn") == ["block1", "block2"]


def test_stages_run_in_order(backbone: Backbone, images: torch.Tensor) -> None:
    seen: list[int] = []
    handles = []
    for number, stage in enumerate(backbone.stages):
        owners = {name.rpartition(".")[0] for name in stage.parameters}
        for owner in owners - {"", "network"}:
            module = backbone.get_submodule(owner)
            handles.append(module.register_forward_pre_hook(lambda m, i, number=number: seen.append(number)))
    with torch.no_grad():
        backbone.forward_features(images)
    for handle in handles:
        handle.remove()
    assert seen == sorted(seen)
    assert set(seen) == set(range(len(backbone.stages)))


def test_modules_without_parameters_belong_to_the_stage_that_runs_them(shared: Callable[[str], Backbone]) -> None:
    resnet = {module: stage.name for stage in shared("resnet18").stages for module in stage.modules}
    assert resnet["network.maxpool"] == "stem"
    assert resnet["network.layer2.0.act1"] == "layer2"
    # What runs over several stages follows the first, so that a frozen prefix can hold nothing random.
    assert resnet["network"] == "stem"
    vit = {module: stage.name for stage in shared("vit_tiny_patch16_224").stages for module in stage.modules}
    assert vit["network.pos_drop"] == "patch_embed"
    assert vit["network.blocks"] == "block0"
    assert vit["network.blocks.3.attn.attn_drop"] == "block3"
    assert vit["network.norm"] == "block11"


def test_a_frozen_prefix_in_evaluation_mode_is_deterministic(images: torch.Tensor) -> None:
    from headstart.backbones import TimmBackbone
    from headstart.backbones.cut import run_prefix
    from headstart.weights.sources import NO_WEIGHTS

    vit = TimmBackbone(
        name="vit_tiny_patch16_224",
        weights=NO_WEIGHTS,
        image_size=(64, 64),
        pos_drop_rate=0.5,
        proj_drop_rate=0.5,
        drop_path_rate=0.5,
    )
    modules = dict(vit.named_modules())

    def prefix(frozen: int) -> tuple[torch.Tensor, torch.Tensor]:
        vit.train()
        for stage in vit.stages[:frozen]:
            for name in stage.modules:
                modules[name].training = False
        with torch.no_grad():
            return run_prefix(vit, images, 4), run_prefix(vit, images, 4)

    first, second = prefix(4)
    assert torch.equal(first, second)
    first, second = prefix(1)
    assert not torch.equal(first, second)


def test_single_layers_are_joined_at_changes_of_resolution() -> None:
    class Flat(nn.Module):
        """Five convolutions in one sequence, grouped by its matcher one by one."""

        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            self.features = nn.Sequential(*layers)
            self.feature_info = [
                {"module": "features.3", "reduction": 1},
                {"module": "features.8", "reduction": 2},
                {"module": "features.9", "reduction": 4},
            ]

        def group_matcher(self, coarse: bool = False) -> dict[str, str]:
            return {"stem": r"^features\.0", "blocks": r"^features\.(\d+)"}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.features(x)

    network = Flat()
    stages = build_stages(network, trace(network, type(network).forward, (3, 8, 8)))
    assert [stage.name for stage in stages] == ["block1", "block2"]
    assert stages[0].parameters == tuple(f"features.{n}.{p}" for n in (0, 2) for p in ("weight", "bias"))
    assert [stage.end for stage in stages] == ["features.4", "features.9"]


def test_without_a_matcher_the_children_are_the_stages_in_the_order_in_which_they_run() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 4)
            self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.BatchNorm1d(4)])
            self.shift = nn.Parameter(torch.zeros(4))
            self.drop = nn.Dropout(0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.mean(dim=(2, 3)) + self.shift
            for block in self.blocks:
                x = self.drop(block(x)) if block is self.blocks[0] else block(x)
            return self.last(x)

    network = Plain()
    stages = build_stages(network, trace(network, type(network).forward, (4, 8, 8)))
    assert [stage.name for stage in stages] == ["block0", "block1", "last"]
    assert [stage.buffers for stage in stages][1] == tuple(
        f"blocks.1.{n}" for n, _ in network.blocks[1].named_buffers()
    )
    owner = {module: stage.name for stage in stages for module in stage.modules}
    assert owner["drop"] == "block0"


@pytest.mark.parametrize("coarse_fails", [True, False])
def test_a_matcher_with_only_one_of_its_two_forms_is_enough(coarse_fails: bool) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.b = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))

        def group_matcher(self, coarse: bool = False) -> dict[str, str]:
            assert coarse is not coarse_fails, "not implemented"
            return {"stem": r"^a", "blocks": r"^b"}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    network = Half()
    stages = build_stages(network, trace(network, type(network).forward, (3, 4, 4)))
    assert [stage.name for stage in stages] == ["a", "b"]
