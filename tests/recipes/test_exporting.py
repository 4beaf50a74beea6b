"""``headstart export``: what is written gives the run's answers where there is neither this package nor torch."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.commands.export import main

WITHOUT_TORCH = """
import json, sys
sys.modules.update(dict.fromkeys(("torch", "headstart", "timm")))  # an import of them fails
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
[name] = [item.name for item in session.get_inputs()]
images = numpy.load(sys.argv[2])
found = numpy.concatenate([session.run(None, {name: one[None]})[0] for one in images])
numpy.save(sys.argv[3], found)
print(session.get_modelmeta().custom_metadata_map["classes"])
"""


@pytest.fixture
def run(train: Callable) -> Path:
    return train("strategy=freeze", "head=logreg").run.path


def images_of(run: Path) -> list[np.ndarray]:
    """The run's validation images, as bytes."""
    from headstart.execution.export import _run_data

    data, absent = _run_data(headstart.load(run))
    assert data is not None, absent
    split = data.dataset("val")
    return [np.asarray(split.image(place)) for place in range(len(split))]


def probabilities(run: Path, images: list[np.ndarray]) -> np.ndarray:
    return np.array([found.probabilities for found in headstart.load(run).predict(images)])


@pytest.mark.parametrize("preprocess", [pytest.param(False, marks=pytest.mark.slow), True])
def test_onnxruntime_alone_gives_the_runs_answers(
    run: Path, tmp_path: Path, preprocess: bool, capsys: pytest.CaptureFixture
):
    pytest.importorskip("onnx")
    before = (run / "result.json").read_bytes()
    assert main([str(run), "--format", "onnx", *(["--preprocess", "--int8"] if preprocess else [])]) == 0
    said = capsys.readouterr().out
    assert "val images: the largest difference is" in said
    card = json.loads((run / "export" / "onnx" / "model.json").read_text())
    assert card["check"]["largest_difference"] < 1e-2
    assert card["check"]["same_class"] == card["check"]["images"]
    images = images_of(run)
    transform = headstart.load(run).transform
    from PIL import Image

    given = images if preprocess else [transform(Image.fromarray(image)).numpy() for image in images]
    np.save(tmp_path / "in.npy", np.stack(given))
    file = run / "export" / "onnx" / card["file"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, file, tmp_path / "in.npy", tmp_path / "out.npy"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == list(headstart.load(run).classes) == card["classes"]
    wanted, found = probabilities(run, images), np.load(tmp_path / "out.npy")
    assert np.abs(wanted - found).max() < (1e-2 if preprocess else 1e-3)
    assert (wanted.argmax(1) == found.argmax(1)).all()
    assert (run / "result.json").read_bytes() == before
    if preprocess:
        assert card["input"] == {"name": "images", "shape": ["batch", "height", "width", 3], "dtype": "uint8"}
        assert (run / "export" / "onnx" / card["int8"]["file"]).stat().st_size < 0.4 * file.stat().st_size
        assert f"{card['int8']['val/acc']:.4f} before, {card['int8']['val/acc_int8']:.4f} in 8 bits" in said
        assert abs(card["int8"]["val/acc"] - card["int8"]["val/acc_int8"]) < 0.1
        # What was scored is what was written: the file takes pixels, whatever the other one takes.
        assert card["int8"]["input"]["name"] == "pixels"
        pixels = np.stack([transform(Image.fromarray(image)).numpy() for image in images])
        np.save(tmp_path / "pixels.npy", pixels)
        small = run / "export" / "onnx" / card["int8"]["file"]
        command = [sys.executable, "-c", WITHOUT_TORCH, small, tmp_path / "pixels.npy", tmp_path / "small.npy"]
        subprocess.run(command, capture_output=True, check=True)
        assert (np.load(tmp_path / "small.npy").argmax(1) == wanted.argmax(1)).mean() > 0.8


def test_torch_and_plain_timm_give_the_runs_answers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    import timm
    import torch
    from PIL import Image

    images, model = images_of(run), headstart.load(run)
    wanted = probabilities(run, images)
    assert main([str(run), "--format", "torch", "--output", str(tmp_path / "graph")]) == 0
    pixels = torch.stack([model.transform(Image.fromarray(image)) for image in images])
    with torch.inference_mode():
        found = torch.export.load(tmp_path / "graph" / "model.pt2").module()(pixels).numpy()
    assert np.abs(wanted - found).max() < 1e-4
    (tmp_path / "folder" / ".headstart-export-killed").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")  # another disk, which may be small
    assert main([str(run), "--format", "hf", "--output", str(tmp_path / "folder")]) == 0
    assert not list((tmp_path / "folder").glob(".*"))
    plain = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(plain))
    with torch.inference_mode():
        found = plain(torch.stack([prepare(Image.fromarray(image)) for image in images])).softmax(-1).numpy()
    assert np.abs(wanted - found).max() < 1e-4
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["label_names"] == list(model.classes)
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "local-dir:" in card
    assert '.convert("RGB")' in card
    assert f"| val/acc | {model.result.metrics['val/acc']:.4f} |" in card
    assert "have the same class" in capsys.readouterr().out


@pytest.mark.parametrize("fit", ["pad", *(pytest.param(fit, marks=pytest.mark.slow) for fit in ("crop", "squash"))])
def test_every_export_fits_images_as_the_run_did(
    train: Callable, tmp_path: Path, fit: str, capsys: pytest.CaptureFixture
):
    """Oblong images whose class lies in their left third, which the crop of the middle does not show."""
    pytest.importorskip("onnx")
    import timm
    import torch
    from PIL import Image

    for number in range(24):
        rng, shape = np.random.default_rng(number), ((40, 120) if number % 3 else (30, 100))
        pixels = rng.integers(0, 60, (*shape, 3), dtype=np.uint8)
        pixels[:, : shape[1] // 4, number % 2] += 150
        file = tmp_path / "images" / ("red" if number % 2 == 0 else "green") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    run = train("strategy=freeze", "head=logreg", f"datamodule.fit={fit}", root=tmp_path / "images").run.path
    model, images = headstart.load(run), images_of(run)
    mode = {"crop": "center", "squash": "squash", "pad": "border"}[fit]
    assert model.transform.spec.crop_mode == mode
    assert model.result.details["input_spec"] == model.transform.spec.as_dict()
    wanted = probabilities(run, images)
    if fit != "crop":
        assert model.result.metrics["val/acc"] == 1.0
    for kind in (["onnx", "--preprocess"], ["torch"], ["hf"]):
        assert main([str(run), "--format", *kind, "--output", str(tmp_path / kind[0])]) == 0
        capsys.readouterr()
    assert json.loads((tmp_path / "onnx" / "model.json").read_text())["input_spec"]["crop_mode"] == mode
    assert json.loads((tmp_path / "torch" / "model.json").read_text())["input_spec"]["crop_mode"] == mode
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run(None, {"images": image[None]})[0] for image in images])
    assert np.abs(wanted - found).max() < 1e-2
    plain = timm.create_model(f"local-dir:{tmp_path / 'hf'}", pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(plain))
    with torch.inference_mode():
        found = plain(torch.stack([prepare(Image.fromarray(image)) for image in images])).softmax(-1).numpy()
    assert np.abs(wanted - found).max() < 1e-4


def test_data_that_have_gone_are_replaced_by_generated_images(
    train: Callable, image_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    root = image_folder()
    run = train("head=mlp", root=root).run.path
    root.rename(tmp_path / "elsewhere")
    assert main([str(run), "--format", "torch"]) == 0
    said = capsys.readouterr().out
    assert "images cannot be used here (datamodule.root=" in said
    assert "on 16 generated images" in said
