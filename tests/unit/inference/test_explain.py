"""The heat lies where the answer comes from: a network that looks for brightness, an image with one bright corner."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F  # noqa: N812

from headstart.commands.predict import main
from headstart.data.input_spec import InputSpec
from headstart.data.transforms import EvalTransform
from headstart.errors import ConfigError
from headstart.execution.load import Model
from headstart.inference.ensemble import Ensemble
from headstart.inference.explain import Explained, heat_map, picture_name


class Brightness(nn.Module):
    """Features: the brightness of each of 4 x 4 fields, in a layout. The answer: the mean, and its negative."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.backbone = SimpleNamespace(features=SimpleNamespace(layout=layout))
        self.layout = layout

    def features(self, images: torch.Tensor) -> torch.Tensor:
        fields = F.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), 4).relu()
        if self.layout == "NCHW":
            return fields
        return fields.permute(0, 2, 3, 1) if self.layout == "NHWC" else fields.flatten(2).transpose(1, 2)

    def head(self, features: torch.Tensor) -> torch.Tensor:
        mean = features.flatten(1).mean(dim=1)
        return torch.stack([mean, -mean], dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


@pytest.fixture
def corner(tmp_path: Path) -> str:
    pixels = np.full((32, 32, 3), 100, np.uint8)
    pixels[:8, 24:] = 250
    Image.fromarray(pixels).save(tmp_path / "corner.png")
    return str(tmp_path / "corner.png")


def model_of(loaded: Model, layout: str) -> Model:
    spec = InputSpec(height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=1.0)
    return replace(loaded, network=Brightness(layout), transform=EvalTransform(spec))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NLC"])
def test_the_heat_is_where_the_answer_comes_from(loaded: Model, corner: str, layout: str):
    pytest.importorskip("captum")
    model = model_of(loaded, layout)
    heat = heat_map(model, model.transform(Image.open(corner))[None], 0)
    assert heat.shape == (32, 32)
    assert heat.max() == pytest.approx(1)
    assert heat[:8, 24:].mean() > 3 * (heat.mean() + 0.01)
    assert heat[16:, :16].max() < 0.1


def test_each_image_leaves_a_picture(loaded: Model, corner: str, folder: Path, tmp_path: Path):
    pytest.importorskip("captum")
    model = Ensemble([model_of(loaded, "NCHW")])
    paths = [corner, str(folder / "broken.jpg"), str(folder / "a.png")]
    outcomes = list(Explained(model, tmp_path / "why").stream(paths, batch_size=2, device="cpu"))
    assert outcomes == list(model.stream(paths, batch_size=2, device="cpu"))
    assert {path.name for path in (tmp_path / "why").iterdir()} == {picture_name(paths[0]), picture_name(paths[2])}
    picture = np.asarray(Image.open(tmp_path / "why" / picture_name(corner)), dtype=float).sum(axis=2)
    assert picture.shape == (32, 32)
    assert picture[2, 30] > picture[30, 2] + 100


def test_it_needs_one_run_and_the_extra(loaded: Model, run_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="--explain shows what one network sees; give one run"):
        Explained(Ensemble([loaded, loaded]), Path("why"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--explain needs captum: pip install 'headstart\[explain\]'"):
        main([str(run_path), str(folder), "--explain", "why", "--device", "cpu"])


def test_pictures_of_the_same_name_are_kept_apart():
    assert picture_name("a/x.png") != picture_name("b/x.png")
    assert picture_name("a/x.png").startswith("x-")
