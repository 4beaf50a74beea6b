"""Maps of several stages: those that timm itself calls intermediate, in one row."""

import pytest
import torch

from headstart.backbones import Backbone, SmallCNN, TimmBackbone
from headstart.backbones.cut import is_cuttable, run_prefix, run_rest
from headstart.backbones.maps import gather, maps_of
from headstart.errors import ConfigError
from headstart.heads import Pool
from headstart.weights.sources import NO_WEIGHTS

SIZE = (64, 96)


def timm_backbone(name: str, size: tuple[int, int] = SIZE) -> TimmBackbone:
    torch.manual_seed(0)
    backbone = TimmBackbone(name=name, weights=NO_WEIGHTS, image_size=size).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter) * 0.5)
    return backbone


def taken(backbone: Backbone, count: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    gather(backbone, count)
    height, width = backbone.input_spec.shape[1:]
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return images, maps_of(backbone(images), backbone.features.maps)


def test_of_a_convolutional_network_the_last_stage_of_each_resolution():
    backbone = timm_backbone("resnet18")
    images, maps = taken(backbone, 4)
    wanted = backbone.network.forward_intermediates(images, intermediates_only=True)[-4:]
    assert [tuple(one.shape[1:]) for one in maps] == [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    for found, one in zip(maps, wanted, strict=True):
        torch.testing.assert_close(found, one)
    assert backbone.feature_dim == 960


def test_of_a_transformer_its_last_blocks_without_the_class_token():
    backbone = timm_backbone("vit_tiny_patch16_224")
    images, maps = taken(backbone, 3)
    final, middle = backbone.network.forward_intermediates(images)
    assert [tuple(one.shape[1:]) for one in maps] == [(192, 4, 6)] * 3
    torch.testing.assert_close(maps[0], middle[-3])
    torch.testing.assert_close(maps[1], middle[-2])
    torch.testing.assert_close(maps[2], final[:, 1:].transpose(1, 2).unflatten(2, (4, 6)))


def test_of_a_network_with_channels_last_too():
    backbone = timm_backbone("swin_tiny_patch4_window7_224", (224, 224))
    images, maps = taken(backbone, 2)
    wanted = backbone.network.forward_intermediates(images, intermediates_only=True)[-2]
    assert [tuple(one.shape[1:]) for one in maps] == [(384, 14, 14), (768, 7, 7)]
    torch.testing.assert_close(maps[0], wanted)
    with torch.no_grad():
        torch.testing.assert_close(maps[1], backbone.forward_features(images).permute(0, 3, 1, 2))


def test_one_map_is_that_of_the_features_and_more_than_there_are_are_all():
    small = SmallCNN(weights=NO_WEIGHTS).eval()
    images, (only,) = taken(small, 1)
    with torch.no_grad():
        assert torch.equal(only, small.forward_features(images))
    _, maps = taken(SmallCNN(weights=NO_WEIGHTS).eval(), 9)
    assert [tuple(one.shape[1:]) for one in maps] == [(32, 31, 31), (64, 14, 14)]


def test_it_can_be_cut_in_front_of_the_first_map_and_not_behind():
    """What a frozen prefix stores must be enough for the maps that are asked for."""
    backbone = timm_backbone("resnet18")
    images, _ = taken(backbone, 2)  # layer3 and layer4
    names = [stage.name for stage in backbone.stages]
    possible = [names[count - 1] for count in range(1, len(names) + 1) if is_cuttable(backbone, count)]
    assert possible == ["stem", "layer1", "layer2", "layer3", "layer4"]
    with torch.no_grad():
        for count in range(1, 6):
            torch.testing.assert_close(run_rest(backbone, run_prefix(backbone, images, count), count), backbone(images))
    other = timm_backbone("resnet18")
    taken(other, 4)  # from layer1 on
    assert [is_cuttable(other, count) for count in range(1, 6)] == [True, True, False, False, True]


def test_pooled_they_are_the_mean_of_each():
    backbone = timm_backbone("resnet18")
    images, maps = taken(backbone, 2)
    pool = Pool(backbone.features)
    with torch.no_grad():
        vectors = pool(backbone(images))
    torch.testing.assert_close(vectors, torch.cat([one.mean(dim=(2, 3)) for one in maps], dim=1))
    assert torch.equal(pool(vectors), vectors)


def test_a_vector_has_no_map():
    backbone = TimmBackbone(name="convnext_atto", weights=NO_WEIGHTS, image_size=(64, 64), pre_logits="keep")
    with pytest.raises(ConfigError, match=r"ends in one vector an image.*backbone.pre_logits=drop"):
        gather(backbone, 4)
