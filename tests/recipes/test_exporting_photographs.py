"""Export on real photographs, network by network: HEADSTART_TEST_PHOTOGRAPHS names a folder with train/ and val/.

docs/howto/export.md has the numbers of a run; each network takes two minutes of a core.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.commands.export import main as export
from headstart.commands.predict import main as predict

ROOT = os.environ.get("HEADSTART_TEST_PHOTOGRAPHS", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ROOT, reason="set HEADSTART_TEST_PHOTOGRAPHS=FOLDER with train/ and val/"),
]

#: With the weights that are there without a network.
NETWORKS = {
    "resnet18": "bundled",
    "efficientnet_lite0": "package",
    "vit_tiny_patch16_224": "none",
    "convnext_atto": "none",
}

WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "headstart"):
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, NoTorch())
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
pixels = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], numpy.concatenate([session.run(None, {"pixels": one[None]})[0] for one in pixels]))
assert not [name for name in sys.modules if name.partition(".")[0] in ("torch", "headstart")]
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_photographs_get_the_same_answers_from_every_export(name: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("onnx")
    import timm
    import torch

    choices = [f"backbone={name}", f"backbone.weights={NETWORKS[name]}", "strategy=freeze", "trainer.max_epochs=2"]
    data = ["datamodule=folder", f"datamodule.root={ROOT}", "datamodule.augment=none", "datamodule.image_size=224"]
    quiet = ["callbacks.progress=none", "callbacks.plots=false", "trainer=cpu", "datamodule.num_workers=0"]
    run = headstart.train(*choices, *data, *quiet, f"paths.output_dir={tmp_path}", f"paths.cache_dir={tmp_path}").path
    said: list[str] = []
    for form, options in (("onnx", ["--int8"]), ("hf", [])):
        assert export([str(run), "--format", form, *options, "--output", str(tmp_path / form)]) == 0
        said.append(capsys.readouterr().out)

    output = tmp_path / "predictions.jsonl"
    assert predict([str(run), f"{ROOT}/val", "--output", str(output), "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    model = headstart.load(run)
    wanted = np.array([[row["probabilities"][label] for label in model.classes] for row in rows])
    photographs = [Image.open(row["path"]).convert("RGB") for row in rows]
    assert len({photograph.size for photograph in photographs}) > 1

    np.save(tmp_path / "pixels.npy", np.stack([model.transform(photograph).numpy() for photograph in photographs]))
    found = {}
    for file in ("model.onnx", "model.int8.onnx"):
        command = [sys.executable, "-c", WITHOUT_TORCH, tmp_path / "onnx" / file, tmp_path / "pixels.npy"]
        subprocess.run([*command, tmp_path / "found.npy"], check=True)
        found[file] = np.load(tmp_path / "found.npy")
    plain = timm.create_model(f"local-dir:{tmp_path / 'hf'}", pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(plain))
    with torch.inference_mode():
        found["plain timm"] = torch.cat([plain(prepare(one)[None]).softmax(-1) for one in photographs]).numpy()

    true = np.array([model.classes.index(Path(row["path"]).parent.name) for row in rows])
    accuracy = {what: float((answers.argmax(1) == true).mean()) for what, answers in found.items()}
    with capsys.disabled():
        for what, answers in found.items():
            same = int((answers.argmax(1) == wanted.argmax(1)).sum())
            largest = float(np.abs(answers - wanted).max())
            print(f"\n{name}, {what}: same class {same}/{len(rows)}, largest difference {largest:.1e}, ", end="")
            print(f"accuracy {accuracy[what]:.4f}", end="")
    for what in ("model.onnx", "plain timm"):
        assert (found[what].argmax(1) == wanted.argmax(1)).all()
        assert np.abs(found[what] - wanted).max() < 1e-3
    lost = accuracy["model.onnx"] - accuracy["model.int8.onnx"]
    assert lost <= 0.02 + 1e-9 or f"it loses {100 * lost:.1f} points" in said[0]
