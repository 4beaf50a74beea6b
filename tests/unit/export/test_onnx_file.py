"""ONNX files: the preprocessing in the graph is Pillow's, the batch is free, and 8 bits stay close."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.data.input_spec import InputSpec
from headstart.data.transforms import EvalTransform
from headstart.errors import ConfigError, RunError
from headstart.export import onnx_file
from headstart.export.answers import Answers, compare
from headstart.tasks import build_task

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SPEC = InputSpec(height=16, width=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), crop_pct=0.9)
SPECS = {
    "center": SPEC,
    "bicubic": InputSpec(height=24, width=24, interpolation="bicubic", crop_pct=0.875),
    "oblong": InputSpec(height=24, width=32, crop_pct=0.9),
    "squash": InputSpec(height=24, width=20, crop_mode="squash", crop_pct=1.0, interpolation="bicubic"),
    "border": InputSpec(height=24, width=24, crop_mode="border", crop_pct=0.95),
    "gray": InputSpec(channels=1, height=16, width=16, mean=(0.5,), std=(0.5,)),
}


class Small(nn.Module):
    """Two convolutions and a linear layer, with large weights: answers that differ from image to image."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, outputs),
        )
        self.layers[-1].weight.data.mul_(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def pictures(channels: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    found = []
    for size in ((30, 41), (64, 50), (20, 19), (33, 33)):
        coarse = rng.integers(0, 256, (9, 7, channels), dtype=np.uint8)
        found.append(
            Image.fromarray(coarse[..., 0] if channels == 1 else coarse).resize(size, Image.Resampling.BICUBIC)
        )
    return found


@pytest.mark.parametrize("name", SPECS)
def test_the_graph_prepares_an_image_as_evaluation_does(name: str):
    spec = SPECS[name]
    content = onnx.parser.parse_model(onnx_file._preprocessing(spec)).SerializeToString()
    step = 1 / (255 * min(spec.std))
    for picture in pictures(spec.channels):
        pixels = np.asarray(picture).reshape(picture.height, picture.width, spec.channels)
        made = onnx_file.answers_of(content, [pixels], alone=True)[0]
        difference = np.abs(made - EvalTransform(spec)(picture).numpy())
        assert difference.max() <= 1.01 * step
        assert difference.mean() <= 0.1 * step


@pytest.mark.parametrize("name", ["multiclass", "binary", "regression"])
def test_a_traced_network_answers_alike_at_any_batch_size(name: str):
    record = {"mean": [3.0, 5.0], "std": [2.0, 1.0]} if name == "regression" else {}
    task = build_task(name, ("a", "b"), record=record or None)
    answers = Answers(Small(task.outputs), task)
    pixels = [EvalTransform(SPEC)(picture).numpy() for picture in pictures()]
    model = onnx_file.traced(answers, SPEC)
    assert [output.name for output in model.graph.output] == [answers.output]
    content = onnx_file.described(model, {"classes": '["a", "b"]'})
    agreement = compare(
        answers.of(pixels), onnx_file.answers_of(content, pixels), kind="val", tolerance=1e-4, what="it"
    )
    assert (agreement.images, agreement.same_class) == (4, 4)
    assert "checked on 4 val images" in str(agreement)
    whole = onnx_file.with_preprocessing(model, SPEC).SerializeToString()
    found = onnx_file.answers_of(whole, [np.asarray(picture) for picture in pictures()], alone=True)
    compare(answers.of(pixels), found, kind="val", tolerance=0.02, what="it")


def test_eight_bits_answer_nearly_alike_in_a_smaller_file():
    task = build_task("multiclass", ("a", "b", "c"))
    network = Small(3)
    network.layers.insert(5, nn.Linear(32, 2000)), network.layers.insert(6, nn.Linear(2000, 32))
    answers, pixels = Answers(network, task), [EvalTransform(SPEC)(picture).numpy() for picture in pictures()]
    model = onnx_file.traced(answers, SPEC)
    small = onnx_file.in_eight_bits(model, pixels)
    assert small.ByteSize() < 0.4 * model.ByteSize()
    found = onnx_file.answers_of(small.SerializeToString(), pixels)
    assert np.abs(found - answers.of(pixels)).max() < 0.1


def test_other_answers_are_refused():
    wanted = np.array([[0.2, 0.8], [0.6, 0.4]])
    with pytest.raises(RunError, match=r"answers differently .* by up to 0\.1 on val images"):
        compare(wanted, np.array([[0.3, 0.7], [0.6, 0.4]]), kind="val", tolerance=1e-3, what="model.onnx")
    with pytest.raises(RunError, match="by up to inf"):
        compare(wanted, wanted * np.nan, kind="val", tolerance=1e-3, what="model.onnx")


def test_what_no_graph_resizes_alike_is_refused():
    with pytest.raises(ConfigError, match="--preprocess cannot resize with interpolation=nearest"):
        onnx_file.with_preprocessing(onnx.ModelProto(), InputSpec(interpolation="nearest"))
