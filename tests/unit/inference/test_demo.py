"""The page of ``headstart demo`` without Gradio: what it asks the model, and what it says when there is no answer."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.data.images import read_image
from headstart.errors import ConfigError
from headstart.execution.predict import Prediction
from headstart.inference import demo


class Shown(Exception):  # noqa: N818
    """Stands for ``gradio.Error``."""


@pytest.fixture
def gradio(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    def part(**choices: Any) -> dict[str, Any]:
        return choices

    def interface(answer: Callable, image: dict, outputs: Any, **choices: Any) -> SimpleNamespace:
        return SimpleNamespace(answer=answer, image=image, launch=lambda **how: taken())

    def taken() -> None:
        raise OSError("Cannot find empty port")

    names = {"Image": part, "Label": part, "Textbox": part, "Interface": interface, "Error": Shown}
    stub = SimpleNamespace(**names, themes=SimpleNamespace(Base=part))
    monkeypatch.setitem(sys.modules, "gradio", stub)
    monkeypatch.setattr(demo, "require_extra", lambda *what: None)
    monkeypatch.setattr(demo, "has_extra", lambda name: False)
    return stub


@pytest.fixture
def model() -> SimpleNamespace:
    """Reads a file as every model does."""

    def predict(image: str, *, device: str) -> Prediction:
        return Prediction(image, "", tuple(float(value) for value in read_image(image).getpixel((0, 0))))

    result = SimpleNamespace(config={"backbone": "x"}, data={"name": "y"})
    classes, task = ("r", "g", "b"), SimpleNamespace(name="multiclass")
    return SimpleNamespace(predict=predict, task=task, classes=classes, result=result, path=Path("run"))


def test_a_file_is_read_as_predict_reads_it(gradio: SimpleNamespace, model: Any, tmp_path: Path):
    from PIL import Image

    page = demo.page(model)
    assert page.image["type"] == "filepath"
    assert page.image["image_mode"] is None
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert page.answer(str(tmp_path / "clear.png")) == {"r": 255, "g": 255, "b": 255}
    assert page.answer(None) is None
    (tmp_path / "eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n")
    with pytest.raises(Shown, match="not an image, or of an unknown format"):
        page.answer(str(tmp_path / "eps.jpg"))


def test_a_port_that_is_taken_is_one_line(gradio: SimpleNamespace, model: Any):
    with pytest.raises(ConfigError, match=r"--port=7860 cannot be used \(Cannot find empty port\); give another"):
        demo.serve(model, port=7860)
