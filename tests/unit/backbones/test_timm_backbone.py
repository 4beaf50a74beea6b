from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from headstart.backbones import SmallCNN, TimmBackbone
from headstart.backbones.timm_network import prune, with_channels
from headstart.backbones.trace import trace
from headstart.data.input_spec import InputSpec
from headstart.errors import ConfigError, WeightsError
from headstart.heads import MLP, FlattenMLP, Linear
from headstart.weights.hub import HubEntry
from headstart.weights.sources import NO_WEIGHTS, ResolvedWeights


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def random(name: str, **options: object) -> TimmBackbone:
    return TimmBackbone(name=name, weights=NO_WEIGHTS, **options)  # type: ignore[arg-type]


def test_features_are_what_they_are_said_to_be(backbone: TimmBackbone, images: torch.Tensor) -> None:
    with torch.no_grad():
        features = backbone.eval().forward_features(images)
    assert features.shape == (2, *backbone.features.shape)
    assert Linear(backbone.features, 3)(features).shape == (2, 3)
    assert backbone.feature_dim == backbone.features.dim


@pytest.mark.parametrize(
    ("name", "dim", "layout", "pool"),
    [
        ("resnet18", 512, "NCHW", "avg"),
        ("vit_tiny_patch16_224", 192, "NLC", "token"),
        ("swin_tiny_patch4_window7_224", 768, "NHWC", "avg"),
        ("mobilenetv3_small_100", 576, "NCHW", "avg"),
    ],
)
def test_layouts(name: str, dim: int, layout: str, pool: str) -> None:
    with torch.device("meta"):
        backbone = random(name)
    assert (backbone.features.dim, backbone.features.layout, backbone.features.pool) == (dim, layout, pool)


def test_pooled_features_are_timms(backbone: TimmBackbone, images: torch.Tensor) -> None:
    """The pooling that a head does is that of the pretrained classifier."""
    if isinstance(backbone, SmallCNN):
        pytest.skip("not a network of timm")
    with torch.no_grad():
        features = backbone.eval().forward_features(images)
        expected = backbone.network.forward_head(backbone.network.forward_features(images), pre_logits=True)
        torch.testing.assert_close(Linear(backbone.features, 1).pool(features), expected)


def test_resnet18_has_the_parameters_of_the_reference() -> None:
    with torch.device("meta"):
        backbone = random("resnet18")
        head = Linear(backbone.features, 2)
    assert parameters(backbone) == 11_176_512
    assert parameters(head) == 1_026


def test_vgg16_has_the_parameters_of_the_references() -> None:
    with torch.device("meta"):
        backbone = random("vgg16")
        assert parameters(backbone) == 14_714_688
        assert backbone.features.shape == (512, 7, 7)
        assert parameters(FlattenMLP(backbone.features, 1)) == 25_692_161
        assert parameters(FlattenMLP(backbone.features, 10)) == 25_701_386
        assert parameters(MLP(backbone.features, 10)) == 535_562
    assert [stage.name for stage in backbone.stages] == ["block1", "block2", "block3", "block4", "block5"]


def test_small_cnn_has_the_parameters_of_the_reference() -> None:
    backbone = SmallCNN(weights=NO_WEIGHTS)
    assert backbone.features.shape == (64, 14, 14)
    head = FlattenMLP(backbone.features, 10, hidden=(128,), dropout=0.5)
    assert parameters(backbone) + parameters(head) == 1_626_442


def test_small_cnn_takes_other_sizes_and_channels() -> None:
    backbone = SmallCNN(weights=NO_WEIGHTS, in_channels=1, image_size=(33, 40))
    assert backbone.forward_features(torch.rand(2, 1, 33, 40)).shape == (2, *backbone.features.shape)
    with pytest.raises(ConfigError, match="too small"):
        SmallCNN(weights=NO_WEIGHTS, image_size=(9, 40))


@pytest.mark.parametrize(("name", "between"), [("vgg16", 119_545_856), ("mobilenetv3_small_100", 590_848)])
def test_pre_logits_keep_is_one_more_stage(name: str, between: int) -> None:
    with torch.device("meta"):
        drop, keep = random(name), random(name, pre_logits="keep")
    assert parameters(keep) - parameters(drop) == between
    assert [stage.name for stage in keep.stages] == [*(stage.name for stage in drop.stages), "pre_logits"]
    assert keep.features.layout == "NC"
    assert drop.features.layout == "NCHW"


def test_pre_logits_keep_changes_nothing_where_there_are_none() -> None:
    with torch.device("meta"):
        drop, keep = random("resnet18"), random("resnet18", pre_logits="keep")
    assert keep.features == drop.features
    assert keep.stages == drop.stages


def test_every_parameter_gets_a_gradient(backbone: TimmBackbone, images: torch.Tensor) -> None:
    backbone.zero_grad()
    backbone.eval().forward_features(images).square().sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []
    backbone.zero_grad()


def test_the_input_is_what_timm_says_of_the_weights() -> None:
    from timm.data import resolve_data_config

    for name in ("resnet18", "vit_tiny_patch16_224", "test_vit"):
        with torch.device("meta"):
            spec = random(name).input_spec
        config = resolve_data_config({}, model=timm.create_model(name))
        assert spec.shape == config["input_size"]
        for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode"):
            assert getattr(spec, key) == config[key]


def test_an_image_size_replaces_the_weights_own() -> None:
    backbone = random("test_vit", image_size=(80, 48))
    assert backbone.input_spec.shape == (3, 80, 48)
    assert backbone.forward_features(torch.rand(1, 3, 80, 48)).shape[1:] == backbone.features.shape


def test_an_image_size_that_a_network_cannot_take_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=r"cannot take 3x8x8 images.*datamodule\.image_size"):
        random("vgg16", image_size=(8, 8))


def test_channels_are_averaged_or_repeated() -> None:
    spec = InputSpec()
    gray = with_channels(spec, 1)
    assert gray.mean == (pytest.approx((0.485 + 0.456 + 0.406) / 3),)
    assert with_channels(spec, 4).mean == (0.485, 0.456, 0.406, 0.485)
    assert with_channels(spec, 3) is spec
    backbone = random("test_resnet", in_channels=1, image_size=(64, 64))
    assert backbone.forward_features(torch.rand(2, 1, 64, 64)).shape == (2, *backbone.features.shape)


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean resnet18"):
        random("resnet_18")
    with pytest.raises(ConfigError, match=r"no such tag of it; its tags: resnet18\.a1_in1k"):
        random("resnet18.made_up")


@pytest.mark.parametrize("options", [{"pre_logits": "both"}, {"in_channels": 0}, {"no_such_option": 3}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="|".join(options)):
        random("test_resnet", **options)


def test_further_options_reach_timm() -> None:
    backbone = random("test_vit", drop_path_rate=0.3)
    rates = [module.drop_prob for module in backbone.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.3)


def hub_weights(path: Path | None) -> ResolvedWeights:
    entry = HubEntry("test_resnet.r160_in1k", "timm/test_resnet.r160_in1k")
    return ResolvedWeights("hub", "hub", "hub:test_resnet.r160_in1k", path, hub=entry)


def test_hub_weights_come_with_their_classifier_and_input(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = {k: v.clone() for k, v in timm.create_model("test_resnet").state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    backbone = TimmBackbone(name="test_resnet", weights=hub_weights(tmp_path / "model.safetensors"), in_channels=1)
    own = backbone.network.state_dict()
    different = [
        name for name in own if own[name].shape != state[name].shape or not torch.equal(own[name], state[name])
    ]
    assert len(different) == 1
    assert backbone.input_spec.shape == (1, 160, 160)
    assert backbone.weights.matched == len(own)
    assert len(backbone.weights.sha256) == 64
    assert backbone.source_classifier is not None
    assert torch.equal(backbone.source_classifier.weight, state["fc.weight"])


def test_damaged_hub_weights_are_refused(tmp_path: Path) -> None:
    state = {k: v.clone() for k, v in timm.create_model("test_resnet").state_dict().items()}
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="does not fit"):
        TimmBackbone(name="test_resnet", weights=hub_weights(tmp_path / "model.safetensors"))


def test_a_download_without_a_network_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"could not be downloaded.*backbone\.weights=bundled"):
        TimmBackbone(name="test_resnet", weights=hub_weights(None))


def test_unused_parts_go_and_shared_ones_stay() -> None:
    class Sharing(nn.Module):
        """Knows one convolution by two names, and owns a classifier that the features do not need."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.second = self.first
            self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
            self.unused_dropout = nn.Dropout(0.3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.second(images)

    network = Sharing()
    prune(network, trace(network, type(network).forward, (3, 4, 4)))
    assert isinstance(network.head, nn.Identity)
    assert network.second is network.first
    assert isinstance(network.first, nn.Conv2d)
    # It holds nothing, and a network may read its probability without calling it.
    assert isinstance(network.unused_dropout, nn.Dropout)


def test_several_feature_tensors_are_joined_by_the_network() -> None:
    with torch.device("meta"):
        backbone = random("crossvit_tiny_240")
    assert backbone.features.layout == "NC"
    assert backbone.features.dim == backbone.network.head_hidden_size
