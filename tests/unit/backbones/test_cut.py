from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from headstart.backbones import Backbone, FeatureSpec, Stage, WeightsReport
from headstart.backbones.cut import is_cuttable, run_prefix, run_rest
from headstart.data.input_spec import InputSpec
from headstart.errors import CacheError


def cuttable_stages(backbone: Backbone) -> tuple[int, ...]:
    return tuple(count for count in range(1, len(backbone.stages) + 1) if is_cuttable(backbone, count))


def test_every_stage_of_these_networks_can_be_cut(backbone: Backbone) -> None:
    assert cuttable_stages(backbone) == tuple(range(1, len(backbone.stages) + 1))


def test_going_on_from_activations_gives_the_features(backbone: Backbone) -> None:
    images = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    backbone.eval()
    with torch.no_grad():
        whole = backbone.forward_features(images)
        for count in range(len(backbone.stages) + 1):
            activations = run_prefix(backbone, images, count)
            assert len(activations) == 5
            torch.testing.assert_close(run_rest(backbone, activations, count), whole)


def test_no_stage_and_all_stages_are_the_ends(backbone: Backbone, images: Tensor) -> None:
    backbone.eval()
    count = len(backbone.stages)
    with torch.no_grad():
        assert run_prefix(backbone, images, 0) is images
        features = run_prefix(backbone, images, count)
        assert torch.equal(features, backbone.forward_features(images))
        assert run_rest(backbone, features, count) is features


def test_prefix_and_rest_share_the_work_of_the_whole(backbone: Backbone, images: Tensor) -> None:
    def work(function: Callable[[], Tensor]) -> int:
        with FlopCounterMode(display=False) as counter:
            function()
        return int(counter.get_total_flops())

    backbone.eval()
    with torch.no_grad():
        whole = work(lambda: backbone.forward_features(images))
        for count in range(1, len(backbone.stages)):
            activations = run_prefix(backbone, images, count)
            prefix = work(lambda count=count: run_prefix(backbone, images, count))
            rest = work(lambda count=count, given=activations: run_rest(backbone, given, count))
            assert prefix > 0
            assert prefix + rest == whole
    assert all("forward" not in module.__dict__ for module in backbone.modules())


def test_gradients_reach_the_later_stages_only(fresh: Callable[[str], Backbone], images: Tensor) -> None:
    backbone = fresh("resnet18").train()
    activations = run_prefix(backbone, images, 3).detach()
    run_rest(backbone, activations, 3).square().sum().backward()
    for number, stage in enumerate(backbone.stages):
        for name in stage.parameters:
            assert (backbone.get_parameter(name).grad is not None) == (number >= 3), name


def test_gradients_are_those_of_the_whole(fresh: Callable[[str], Backbone], images: Tensor) -> None:
    backbone = fresh("vit_tiny_patch16_224").eval()
    backbone.forward_features(images).square().sum().backward()
    later = [name for stage in backbone.stages[7:] for name in stage.parameters]
    expected = {name: backbone.get_parameter(name).grad.clone() for name in later}
    backbone.zero_grad()
    run_rest(backbone, run_prefix(backbone, images, 7).detach(), 7).square().sum().backward()
    for name in later:
        torch.testing.assert_close(backbone.get_parameter(name).grad, expected[name])


def test_batchnorm_statistics_of_the_prefix_do_not_move(fresh: Callable[[str], Backbone], images: Tensor) -> None:
    backbone = fresh("resnet18").train()
    with torch.no_grad():
        activations = run_prefix(backbone, images, 2)
    before = {name: tensor.clone() for name, tensor in backbone.named_buffers()}
    run_rest(backbone, activations, 2)
    moved = {name for name, tensor in backbone.named_buffers() if not torch.equal(tensor, before[name])}
    assert moved == {name for stage in backbone.stages[2:] for name in stage.buffers}


def test_modes_and_random_state_are_left_alone(fresh: Callable[[str], Backbone]) -> None:
    backbone = fresh("small_cnn").train()
    state = torch.get_rng_state()
    assert cuttable_stages(backbone) == (1, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in backbone.modules())


class Toy(Backbone):
    """Two linear stages; ``skip`` also sends the first one's input past it, where a cut cannot follow."""

    def __init__(self, *, skip: bool, inplace: bool = False) -> None:
        super().__init__()
        self.name = "toy"
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.extra = nn.Conv2d(3, 4, 1)
        self.skip, self.inplace = skip, inplace
        self.input_spec = InputSpec(height=8, width=8)
        self.features = FeatureSpec(4, (4, 8, 8), "NCHW")
        self.weights = WeightsReport("none")
        self.source_classifier = None
        first = ("a.weight", "a.bias", "extra.weight", "extra.bias")
        self.stages = (
            Stage("one", first, modules=("a", "extra"), end="a"),
            Stage("two", ("b.weight", "b.bias"), modules=("b",), end="b"),
        )

    def forward_features(self, images: Tensor) -> Tensor:
        side = self.extra(images) if self.skip else 0.0
        x = self.a(images)
        x = torch.relu_(x) if self.inplace else x
        return self.b(x) + side


def test_a_cut_that_would_lose_a_skip_connection_is_not_offered() -> None:
    assert cuttable_stages(Toy(skip=False)) == (1, 2)
    assert cuttable_stages(Toy(skip=True)) == (2,)


def test_a_cut_that_would_change_stored_activations_is_not_offered() -> None:
    assert not is_cuttable(Toy(skip=False, inplace=True), 1)


@pytest.mark.parametrize("count", [-1, 3, 9])
def test_a_stage_that_is_not_there_is_refused(count: int) -> None:
    with pytest.raises(CacheError, match="cannot be cut after"):
        run_rest(Toy(skip=False), torch.zeros(1, 4, 8, 8), count)


class Wrapped(Toy):
    """Its first stage returns its tensor together with something else, inside a container that both stages share."""

    def __init__(self) -> None:
        super().__init__(skip=False)

        class Pair(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 1)

            def forward(self, x: Tensor) -> tuple[Tensor, int]:
                return self.conv(x) * 2, 7

        self.a = Pair()
        del self.extra
        self.stages = (
            Stage("one", ("a.conv.weight", "a.conv.bias"), modules=("a", "a.conv"), end="a"),
            self.stages[1],
        )

    def forward_features(self, images: Tensor) -> Tensor:
        x, seven = self.a(images)
        return self.b(x) + seven


def test_a_tensor_that_comes_with_other_things_is_cut_out_of_them(images: Tensor) -> None:
    toy = Wrapped()
    assert cuttable_stages(toy) == (1, 2)
    small = images[:, :, :8, :8]
    torch.testing.assert_close(run_rest(toy, run_prefix(toy, small, 1), 1), toy(small))


def test_a_stage_that_ends_inside_a_container_can_be_cut() -> None:
    """Swin's last norm follows a container that lies wholly in the prefix."""
    from headstart.backbones import TimmBackbone
    from headstart.weights.sources import NO_WEIGHTS

    backbone = TimmBackbone(name="resnetv2_50", weights=NO_WEIGHTS, image_size=(32, 32), layers=(1, 1, 1, 1))
    assert [stage.name for stage in backbone.stages] == ["stem", "stage0", "stage1", "stage2", "stage3", "norm"]
    assert cuttable_stages(backbone) == (1, 2, 3, 4, 5, 6)


def test_what_a_network_stores_for_evaluation_does_not_outlive_its_weights() -> None:
    """LeViT keeps its attention biases between evaluations; neither a trace nor a tried cut may leave any behind."""
    from headstart.backbones import TimmBackbone
    from headstart.weights.sources import NO_WEIGHTS

    backbone = TimmBackbone(name="levit_128s", weights=NO_WEIGHTS).train()
    assert is_cuttable(backbone, 1)
    stored = [module.attention_bias_cache for module in backbone.modules() if hasattr(module, "attention_bias_cache")]
    assert stored
    assert not any(stored)
