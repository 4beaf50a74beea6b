"""Exported backbones: plain timm loads them, this package finds everything again, and damage is told."""

import json
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from headstart.backbones import SmallCNN, TimmBackbone
from headstart.data import InputSpec
from headstart.errors import WeightsError
from headstart.export.backbone_file import export_model
from headstart.heads import MLP, Linear
from headstart.model.transfer_model import TransferModel
from headstart.runs.result import Result
from headstart.tasks import build_task
from headstart.weights.sources import NO_WEIGHTS, resolve_weights

CLASSES = ("ant", "bee", "cat")
SPEC = InputSpec(height=48, width=40, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), crop_pct=0.9, interpolation="bicubic")
CONFIG = {
    "seed": 3,
    "loss": {"label_smoothing": 0.0},
    "trainer": {"max_epochs": 7, "precision": "32-true"},
    **{group: {"name": group} for group in ("strategy", "optimizer", "scheduler", "datamodule", "head")},
}
RESULT = Result(
    status="done",
    fingerprint="f" * 64,
    metrics={"val/acc": 0.75},
    config={"overrides": ["strategy=scratch", "name=two words"]},
    weights={"source": "none", "sha256": ""},
    data={"name": "insects", "fingerprint": "d" * 64, "content": "c" * 64, "sizes": {"train": 90, "val": 30}},
)


@cache
def network(name: str = "resnet18", head: type = Linear, classes: tuple[str, ...] = CLASSES) -> TransferModel:
    torch.manual_seed(0)
    kind = SmallCNN if name == "small_cnn" else TimmBackbone
    backbone = kind(name=name, weights=NO_WEIGHTS, image_size=(48, 40))
    for buffer_name, buffer in backbone.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_()
    return TransferModel(backbone, head(backbone.features, 1 if len(classes) == 2 else len(classes)))


def exported(folder: Path, model: TransferModel, classes: tuple[str, ...] = CLASSES, **choices) -> Path:
    task = build_task("binary" if len(classes) == 2 else "multiclass", classes)
    return export_model(folder, model, task, RESULT, CONFIG, SPEC, **choices)


def card_of(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


def test_plain_timm_loads_it_strictly_and_gives_the_same_features(tmp_path: Path):
    model = network().eval()
    path = exported(tmp_path, model)
    plain = timm.create_model("resnet18", num_classes=0)
    plain.load_state_dict(load_file(path), strict=True)
    images = torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), model.features(images).mean(dim=(2, 3)))
    card = card_of(path)
    assert card["timm"]["strict"] is True
    assert card["timm"]["create"] == "timm.create_model('resnet18', num_classes=0)"


def test_the_card_says_what_the_weights_are(tmp_path: Path):
    card = card_of(exported(tmp_path, network(), licence="CC BY 4.0"))
    assert card["architecture"] == "resnet18"
    assert card["data"] == RESULT.data
    assert card["source"] == "insects: 90 training images, 3 classes"
    assert card["metrics"] == {"val/acc": 0.75}
    assert card["command"] == "python train.py strategy=scratch 'name=two words'"
    assert card["recipe"]["max_epochs"] == 7
    assert card["started_from"] == {"source": "none", "sha256": ""}
    assert card["licence"] == "CC BY 4.0"


@pytest.mark.parametrize("name", ["resnet18", "small_cnn"])
def test_backbone_weights_finds_everything_again(tmp_path: Path, name: str):
    model = network(name).eval()
    exported(tmp_path / "study" / "run", model)
    for place in (tmp_path / "study" / "run", tmp_path / "study", tmp_path / "study" / "run" / "export.safetensors"):
        weights = resolve_weights(name, str(place))
        again = type(model.backbone)(name=name, weights=weights).eval()
        assert again.input_spec == SPEC
        for key, tensor in model.backbone.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[key]), key
        assert again.weights.classes == CLASSES
        assert again.weights.missing == again.weights.unexpected == ()
        assert torch.equal(again.source_classifier.weight, model.head.linear.weight)
        assert torch.equal(again.source_classifier.bias, model.head.linear.bias)


def test_the_file_alone_still_says_its_network_input_and_classes(tmp_path: Path):
    path = exported(tmp_path, network())
    moved = path.rename(tmp_path / "moved.safetensors")
    backbone = TimmBackbone(name="resnet18", weights=resolve_weights("resnet18", str(moved)))
    assert (backbone.input_spec, backbone.weights.classes) == (SPEC, CLASSES)
    with pytest.raises(WeightsError, match="weights of resnet18"):
        TimmBackbone(name="resnet34", weights=resolve_weights("resnet34", str(moved)))


def test_one_sigmoid_output_is_a_classifier_of_two_classes(tmp_path: Path):
    model = network(classes=("no", "yes")).eval()
    exported(tmp_path, model, ("no", "yes"))
    found = TimmBackbone(name="resnet18", weights=resolve_weights("resnet18", str(tmp_path))).source_classifier
    features = torch.randn(5, 512)
    logits = features @ found.weight.T + found.bias
    expected = torch.sigmoid(model.head.linear(features)).ravel()
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1], expected)


def test_a_head_with_hidden_layers_is_no_classifier_of_features(tmp_path: Path):
    exported(tmp_path, network())
    path = exported(tmp_path, network(head=MLP))
    assert "classifier" not in card_of(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["export.json", "export.safetensors"]


def test_dropped_layers_are_told(tmp_path: Path):
    card = card_of(exported(tmp_path, network("mobilenetv3_small_100")))
    assert card["timm"]["strict"] is False
    assert card["timm"]["missing"] == ["conv_head.weight", "conv_head.bias"]


def test_damage_and_other_networks_are_clear_errors(tmp_path: Path):
    path = exported(tmp_path, network())
    with pytest.raises(WeightsError, match=r"weights of resnet18 cannot be loaded into backbone\.name=resnet50"):
        TimmBackbone(name="resnet50", weights=resolve_weights("resnet50", str(tmp_path)))
    with pytest.raises(WeightsError, match=r"weights of resnet18 cannot be loaded into backbone\.name=small_cnn"):
        SmallCNN(weights=resolve_weights("small_cnn", str(tmp_path)))
    beside = tmp_path / "export.classifier.safetensors"
    classifier = beside.read_bytes()
    beside.write_bytes(classifier[:-4] + b"\1\2\3\4")
    with pytest.raises(WeightsError, match="not the classifier that its card names"):
        TimmBackbone(name="resnet18", weights=resolve_weights("resnet18", str(tmp_path)))
    beside.unlink()  # a file that was copied without it is still good for everything else
    assert TimmBackbone(name="resnet18", weights=resolve_weights("resnet18", str(tmp_path))).source_classifier is None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"its digest .* of its card"):
        resolve_weights("resnet18", str(tmp_path))
    path.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match="truncated or damaged"):
        TimmBackbone(name="resnet18", weights=resolve_weights("resnet18", str(path)))


def test_folders_without_one_export_are_told(tmp_path: Path):
    with pytest.raises(WeightsError, match="headstart export RUN"):
        resolve_weights("resnet18", str(tmp_path))
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "export.safetensors").touch()
    with pytest.raises(WeightsError, match="holds 2 exported backbones; name one of them"):
        resolve_weights("resnet18", str(tmp_path))


def test_the_same_model_gives_the_same_bytes(tmp_path: Path):
    model = network()
    files = [exported(tmp_path / str(place), model).read_bytes() for place in range(4)]
    assert len(set(files)) == 1
