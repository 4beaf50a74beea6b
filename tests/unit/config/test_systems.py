"""The reference systems: exactly the parameters, and for one of them exactly the outputs, of their descriptions."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.config import compose
from headstart.config.compose import plain
from headstart.config.settings import Component
from headstart.model.description import ModelInfo
from headstart.model.transfer_model import TransferModel
from headstart.tasks import build_task
from headstart.training.assemble import build_backbone, build_head
from headstart.weights.sources import NO_WEIGHTS

#: Experiment, further overrides, classes, parameters of the backbone, of the head, of what learns.
SYSTEMS = [
    ("vgg16_binary", (), 2, 14_714_688, 25_692_161, 25_692_161),
    ("vgg16_flatten", (), 10, 14_714_688, 25_701_386, 25_701_386),
    ("vgg16_gap", (), 10, 14_714_688, 535_562, 535_562),
    ("vgg16_gap", ("strategy=lp_ft", "trainer.max_epochs=20"), 10, 14_714_688, 535_562, 14_714_688 + 535_562),
    ("small_cnn_scratch", (), 10, 19_392, 1_607_050, 1_626_442),
    ("resnet18_finetune", (), 2, 11_176_512, 1_026, 11_177_538),
]

#: The same of the variants that the files' headers name.
VARIANTS = [
    ("vgg16_binary", ("task=multiclass",), 2, 14_714_688, 25_693_186, 25_693_186),
    ("vgg16_binary", ("head=mlp",), 2, 14_714_688, 526_337, 526_337),
    ("vgg16_binary", ("strategy=partial", "head_epochs=5"), 2, 14_714_688, 25_692_161, 7_079_424 + 25_692_161),
    ("vgg16_flatten", ("task=regression",), 1, 14_714_688, 25_692_161, 25_692_161),
    ("vgg16_flatten", ("task=multilabel",), 10, 14_714_688, 25_701_386, 25_701_386),
    ("vgg16_flatten", ("strategy=partial", "strategy.stages=[block5]"), 10, 14_714_688, 25_701_386, 32_780_810),
    ("vgg16_flatten", ("head=mlp",), 10, 14_714_688, 535_562, 535_562),
    ("vgg16_gap", ("datamodule.image_size=160",), 10, 14_714_688, 535_562, 535_562),
    ("vgg16_gap", ("strategy=partial", "strategy.k=1", "head_epochs=5"), 10, 14_714_688, 535_562, 7_614_986),
    ("vgg16_gap", ("head=flatten_mlp",), 10, 14_714_688, 25_701_386, 25_701_386),
    ("vgg16_gap", ("task=binary",), 2, 14_714_688, 526_337, 526_337),
    ("small_cnn_scratch", ("task=binary",), 2, 19_392, 1_605_889, 1_625_281),
    ("resnet18_finetune", ("strategy=partial", "strategy.k=1"), 2, 11_176_512, 1_026, 8_393_728 + 1_026),
    ("resnet18_finetune", ("strategy=freeze",), 2, 11_176_512, 1_026, 1_026),
    ("resnet18_finetune", ("task=binary",), 2, 11_176_512, 513, 11_177_025),
]


def composed(experiment: str, *overrides: str) -> dict[str, Any]:
    return plain(compose([f"experiment={experiment}", "datamodule.root=somewhere", *overrides]))


def built(config: dict[str, Any], classes: int, device: str = "cpu") -> TransferModel:
    """Structure only on the meta device: VGG16 with its wide head has 40 million parameters."""
    names = [f"output{number}" for number in range(classes)]
    targets = np.eye(2, 1) * np.ones((2, classes)) if config["task"] == "regression" else None
    task = build_task(config["task"], names, train_targets=targets)
    with torch.device(device):
        size = config["datamodule"].get("image_size")
        backbone = build_backbone(Component.of(config["backbone"]), NO_WEIGHTS, seed=config["seed"], image_size=size)
        return TransferModel(backbone, build_head(Component.of(config["head"]), backbone, task, seed=1))


def learning(config: dict[str, Any], info: ModelInfo) -> int:
    phases = Component.of(config["strategy"]).build().phases(info, max_epochs=config["trainer"]["max_epochs"])
    names = {name for phase in phases for name in phase.learning}
    sizes = {parameter.name: parameter.size for stage in info.stages for parameter in stage.parameters}
    return sum(sizes[name] for name in names)


@pytest.mark.parametrize(("experiment", "overrides", "classes", "backbone", "head", "trainable"), SYSTEMS + VARIANTS)
def test_the_systems_have_exactly_their_parameters(experiment, overrides, classes, backbone, head, trainable):
    config = composed(experiment, *overrides)
    model = built(config, classes, "meta")
    assert sum(p.numel() for p in model.backbone.parameters()) == backbone
    assert sum(p.numel() for p in model.head.parameters()) == head
    assert learning(config, model.describe()) == trainable


def test_the_effective_rates_are_those_of_the_descriptions():
    for experiment, rate in (("vgg16_binary", 1e-3), ("vgg16_gap", 1e-3), ("small_cnn_scratch", 1e-3)):
        config = composed(experiment)
        info = built(config, 2 if experiment == "vgg16_binary" else 10, "meta").describe()
        (phase,) = Component.of(config["strategy"]).build().phases(info, max_epochs=1)
        rates = {round(config["optimizer"]["lr"] * group.lr_mult, 12) for group in phase.groups}
        assert rates == {rate}, experiment


class Plain(nn.Module):
    """The small CNN as anyone would write it in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 3)
        self.dense, self.out = nn.Linear(64 * 14 * 14, 128), nn.Linear(128, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = torch.max_pool2d(torch.relu(self.first(images)), 2)
        images = torch.max_pool2d(torch.relu(self.second(images)), 2)
        hidden = torch.relu(self.dense(images.reshape(len(images), -1)))
        return self.out(torch.dropout(hidden, 0.5, self.training))


def test_the_small_cnn_gives_the_outputs_of_a_plain_implementation():
    model, plain_model = built(composed("small_cnn_scratch"), 10), Plain()
    ours = list(model.state_dict().values())
    theirs = plain_model.state_dict()
    assert [tuple(tensor.shape) for tensor in ours] == [tuple(tensor.shape) for tensor in theirs.values()]
    plain_model.load_state_dict(dict(zip(theirs, ours, strict=True)))
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model.eval(), plain_model.eval()
    assert torch.equal(model(images), plain_model(images))
    model.train(), plain_model.train()
    torch.manual_seed(3)
    dropped = model(images)
    torch.manual_seed(3)
    assert torch.equal(dropped, plain_model(images))
    assert not torch.equal(dropped, model.eval()(images))


def test_the_small_cnn_sees_pixels_from_0_to_1_of_the_whole_image():
    spec = built(composed("small_cnn_scratch"), 10).backbone.input_spec
    assert (spec.mean, spec.std, spec.crop_pct, spec.crop_mode) == ((0.0,) * 3, (1.0,) * 3, 1.0, "squash")


def test_the_source_and_the_target_of_the_command_pair_fit():
    source, target = (plain(compose([f"experiment={name}"])) for name in ("pretrain", "transfer"))
    assert source["export"] is True
    assert target["backbone"]["weights"] == f"{target['paths']['output_dir']}/{source['name']}"
    assert not set(source["datamodule"]["classes"]) & set(target["datamodule"]["classes"])
    for key in ("image_size", "val_fraction", "test_fraction"):
        assert source["datamodule"][key] == target["datamodule"][key], key
