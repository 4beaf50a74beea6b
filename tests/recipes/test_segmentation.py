"""``task=segmentation``: whole commands on the drawn shapes."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F  # noqa: N812

from headstart.commands.evaluate import main as evaluate
from headstart.commands.predict import main as predict
from headstart.config import compose, resolve_run
from headstart.errors import ConfigError
from headstart.execution.execute import prepare_model
from headstart.execution.export import export_run
from headstart.execution.load import load
from headstart.inference.masks import WithMasks
from headstart.runs.directory import find_runs
from headstart.runs.result import read_result
from headstart.training.checkpoints import load_weights

SHAPES = (
    "datamodule=shapes",
    "datamodule.images=150",
    "datamodule.num_workers=0",
    "task=segmentation",
    "head=dense",
    "backbone=small_cnn",
    "backbone.weights=none",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=8",
    "optimizer.lr=0.01",
    "callbacks.progress=none",
)


@pytest.fixture
def train_shapes(tmp_path):
    """Trains in this process on the drawn shapes."""

    def run(*overrides: str):
        from headstart.execution.train import train

        done = train(resolve_run(compose([*SHAPES, f"paths.output_dir={tmp_path}/out", *overrides])))
        return done.path, done.result

    return run


def ious(network: torch.nn.Module, batches) -> np.ndarray:
    """Of each class, counted pixel by pixel over all batches."""
    both, either = np.zeros(4), np.zeros(4)
    for batch in batches:
        with torch.no_grad():
            outputs = network(batch["images"])
        predicted = F.interpolate(outputs, size=(64, 64), mode="bilinear", align_corners=False).argmax(1).numpy()
        for true, said in zip(batch["targets"].numpy(), predicted, strict=True):
            for number in range(4):
                counts = true != 255
                both[number] += ((true == number) & (said == number) & counts).sum()
                either[number] += (((true == number) | (said == number)) & counts).sum()
    return both / either


@pytest.mark.parametrize(
    "strategy",
    [
        "freeze",
        "partial",
        pytest.param("full", marks=pytest.mark.slow),
        pytest.param("lora", marks=pytest.mark.slow),
        pytest.param("lp_ft", marks=pytest.mark.slow),
    ],
)
def test_a_network_beats_the_answer_background(train_shapes, strategy: str):
    path, result = train_shapes(f"strategy={strategy}", "callbacks.plots=false")
    shares = result.data["class_shares"]["test"]
    trivial = shares[0] / len(shares)  # background everywhere: its share, and nothing of the three others
    assert result.metrics["test/miou"] > trivial + 0.15
    assert result.metrics["test/acc"] > shares[0] + 0.02
    assert result.details["monitor"] == "val/miou"
    audit = json.loads((path / "audit.json").read_text())
    drift = {stage["name"]: stage["drift_relative"] for stage in audit["stages"]}
    moved = {"freeze": {"head"}, "partial": {"head", "block2"}}.get(strategy, {"head", "block1", "block2"})
    assert {name for name, amount in drift.items() if amount} == moved
    assert result.details["phases"] == (["probe", "finetune"] if strategy == "lp_ft" else [result.details["phases"][0]])


def test_metrics_are_those_of_the_chosen_checkpoint_in_a_loop(train_shapes, tmp_path):
    overrides = ("strategy=full", "trainer.max_epochs=3", "datamodule.augment=light", "callbacks.plots=false")
    path, result = train_shapes(*overrides)
    resolved = resolve_run(compose([*SHAPES, f"paths.output_dir={tmp_path}/out", *overrides]))
    _, surroundings, model = prepare_model(resolved)
    load_weights(model, path / "checkpoints")
    found = ious(model.eval(), surroundings.data.test_dataloader())
    for name, iou in zip(surroundings.task.classes, found, strict=True):
        assert result.metrics[f"test/iou_{name}"] == pytest.approx(iou, abs=2e-3)
    assert result.metrics["test/miou"] == pytest.approx(found.mean(), abs=2e-3)


@pytest.mark.slow
def test_adapters_are_folded_into_what_predicts_masks(train_shapes):
    path, result = train_shapes(
        "strategy=lora", "trainer.max_epochs=2", "datamodule.images=60", "callbacks.plots=false"
    )
    model = load(path)
    assert not any("lora_" in name for name, _ in model.network.named_parameters())
    found = ious(model.network, images_to_test("datamodule.images=60"))
    assert result.metrics["test/miou"] == pytest.approx(found.mean(), abs=2e-3)


def images_to_test(*overrides: str):
    """The test images of the drawn shapes, in one process."""
    _, surroundings, _ = prepare_model(resolve_run(compose([*SHAPES, *overrides])))
    return surroundings.data.test_dataloader()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["freeze", "full"])
def test_two_processes_score_every_image_once(strategy: str, tmp_path: Path):
    """15 test images are no even share for two."""
    chosen = ["datamodule.images=75", f"strategy={strategy}", "trainer.max_epochs=2", "callbacks.plots=false"]
    command = [sys.executable, "-m", "headstart", "train", *SHAPES, *chosen, "trainer=ddp_cpu", "trainer.devices=2"]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [*command, f"paths.output_dir={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = find_runs(tmp_path)
    result = read_result(path)
    assert result.data["sizes"]["test"] == 15
    with np.load(path / "predictions_test.npz") as stored:
        assert len(set(stored["ids"].tolist())) == 15
        hits, pixels = stored["hits"], stored["pixels"]
    found = ious(load(path).network, images_to_test(*chosen))
    assert result.metrics["test/miou"] == pytest.approx(found.mean(), abs=2e-3)
    assert result.metrics["test/acc"] == pytest.approx(hits.sum() / pixels.sum(), abs=1e-6)


@pytest.mark.parametrize("choices", [("strategy=freeze", "datamodule.augment=light"), ("strategy=full",)])
def test_interrupted_and_resumed_equals_uninterrupted(train_shapes, monkeypatch, choices: tuple[str, ...]):
    from headstart.training.module import TransferModule

    overrides = (*choices, "trainer.max_epochs=3", "datamodule.images=60", "callbacks.plots=false")
    _, whole = train_shapes(*overrides, "name=whole")
    began = TransferModule.on_train_epoch_start

    def stops(self) -> None:
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        began(self)

    with monkeypatch.context() as patched:
        patched.setattr(TransferModule, "on_train_epoch_start", stops)
        with pytest.raises(KeyboardInterrupt):
            train_shapes(*overrides, "name=parted")
    _, resumed = train_shapes(*overrides, "name=parted")
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize("stored", ["freeze", "partial"])
def test_stored_maps_give_what_images_give(train_shapes, stored: str):
    overrides = (f"strategy={stored}", "trainer.max_epochs=2", "datamodule.images=60", "callbacks.plots=false")
    _, cached = train_shapes(*overrides, "cache=require", "name=cached")
    _, plain = train_shapes(*overrides, "cache=off", "name=plain")
    assert cached.cache["used"]
    assert not plain.cache["used"]
    for name, value in plain.metrics.items():
        assert cached.metrics[name] == pytest.approx(value, abs=1e-4)


def test_maps_much_larger_than_the_images_are_not_stored(train_shapes):
    """At 64 pixels the first block of this network has 31 x 31 x 32 numbers of four bytes, ten times its image."""
    _, result = train_shapes(
        "strategy=freeze", "trainer.max_epochs=1", "datamodule.images=30", "callbacks.plots=false", "cache=auto"
    )
    assert not result.cache["used"]
    assert "times larger than the images" in result.cache["reason"]
    assert "cache=require stores them all the same" in result.cache["reason"]


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            ("head=linear",),
            "task=segmentation needs a head that answers for every pixel, which Linear does not; use head",
        ),
        (
            ("head=logreg",),
            "task=segmentation needs a head that answers for every pixel, which LogisticRegression does",
        ),
        (("task=multiclass",), "answers for every pixel, which needs task=segmentation"),
        (("batch_transform=mixup",), "batch_transform.name=mixup does not go with task=segmentation"),
        (("head_init=probe",), "head_init=probe does not go with task=segmentation"),
        (("datamodule.shots=5",), "datamodule.shots=5 does not go with task=segmentation.*use datamodule.fraction"),
        (("datamodule.fit=pad",), "datamodule.fit=pad does not go with task=segmentation"),
        (("backbone=resnet18", "backbone.pre_logits=keep"), "backbone.pre_logits=keep ends in one vector an image"),
        (("strategy=cotuning",), "does not go with this strategy"),
        (("datamodule.augment=light", "datamodule.train_size=48"), "datamodule.train_size=48 does not go with"),
        (("trainer.compile=true",), "trainer.compile=True does not go with task=segmentation"),
    ],
)
def test_what_cannot_go_with_it_is_refused_before_training(choices: tuple[str, ...], said: str):
    with pytest.raises(ConfigError, match=said):
        resolve_run(compose([*SHAPES, *choices]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with its pictures, and a folder of new images whose masks are known."""
    from headstart.data.segmentation.shapes import draw
    from headstart.execution.train import train

    place = tmp_path_factory.mktemp("segmentation")
    path = train(
        resolve_run(compose([*SHAPES, "strategy=full", "trainer.max_epochs=4", f"paths.output_dir={place}"]))
    ).path
    truth = {}
    for number in range(12):
        pixels, mask = draw(5, number, 96)
        for kind, part in (("images", pixels), ("masks", mask)):
            (place / "new" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(part).save(place / "new" / kind / f"{number}.png")
        truth[f"{number}.png"] = mask
    return path, place / "new", truth


def test_new_images_get_masks_of_their_own_size(finished, tmp_path, capsys):
    path, new, truth = finished
    table, masks = tmp_path / "out.csv", tmp_path / "masks"
    images = str(new / "images")
    command = [str(path), images, "--output", str(table), "--masks", str(masks), "--device", "cpu", "--batch-size", "5"]
    assert predict(command) == 0
    said = capsys.readouterr().err
    assert "12 images predicted" in said
    assert f"written to {masks}" in said
    with table.open(newline="") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert list(rows["0.png"]) == ["path", *(f"share/{name}" for name in ("background", "disc", "square", "triangle"))]
    model = load(path)
    right = counted = 0
    for name, mask in truth.items():
        with Image.open(masks / Path(images).relative_to("/") / name) as written:
            assert written.mode == "P"
            assert written.getpalette()[3:6] == [128, 0, 0]
            found = np.asarray(written)
        assert found.shape == mask.shape == (96, 96)
        assert np.array_equal(model.predict(new / "images" / name).mask, found)
        shares = np.bincount(found.ravel(), minlength=4) / found.size
        assert [float(value) for value in list(rows[name].values())[1:]] == pytest.approx(shares.tolist(), abs=1e-5)
        counts = mask != 255
        right, counted = right + (found == mask)[counts].sum(), counted + counts.sum()
    trivial = np.mean([(mask[mask != 255] == 0).mean() for mask in truth.values()])
    assert right / counted > trivial + 0.01


def test_masks_are_of_runs_that_predict_some(train, tmp_path):
    with pytest.raises(ConfigError, match=r"--masks=.*: a run of task=multiclass predicts no masks"):
        WithMasks(load(train("strategy=freeze", "trainer.max_epochs=1").run.path), tmp_path)


def test_it_is_scored_on_new_images_with_masks(finished, tmp_path):
    path, new, truth = finished
    choices = ["datamodule=masks", f"datamodule.root={new}"]
    choices += ["datamodule.class_names=[background,disc,square,triangle]"]
    assert evaluate([str(path), *choices, "--output", str(tmp_path / "scored")]) == 0
    told = json.loads((tmp_path / "scored" / "evaluation.json").read_text())["metrics"]
    model = load(path)
    both, either = np.zeros(4), np.zeros(4)
    for name, mask in truth.items():
        pixels = model.transform(Image.open(new / "images" / name))[None]
        with torch.no_grad():
            found = model.task.masks(model.network(pixels), (64, 64))[0].numpy()
        true = np.asarray(Image.fromarray(mask).resize((64, 64), Image.Resampling.NEAREST))
        for number in range(4):
            counts = true != 255
            both[number] += ((true == number) & (found == number) & counts).sum()
            either[number] += (((true == number) | (found == number)) & counts).sum()
    assert told["miou"]["value"] == pytest.approx((both / either).mean(), abs=1e-6)
    assert told["miou"]["low"] < told["miou"]["value"] < told["miou"]["high"]


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_exported_it_answers_for_every_pixel(finished, tmp_path, form: str):
    path, new, _ = finished
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    written = export_run(path, form=form, output=tmp_path)
    model = load(path)
    pixels = model.transform(Image.open(new / "images" / "3.png"))[None]
    if form == "onnx":
        import onnxruntime

        (answer,) = onnxruntime.InferenceSession(str(written)).run(None, {"pixels": pixels.numpy()})
    else:
        answer = torch.export.load(str(written)).module()(pixels).detach().numpy()
    with torch.no_grad():
        logits = F.interpolate(model.network(pixels), size=(64, 64), mode="bilinear", align_corners=False)
    assert answer.shape == (1, 4, 64, 64)
    np.testing.assert_allclose(answer, logits.softmax(dim=1).numpy(), atol=1e-4)


def test_a_folder_for_plain_timm_is_refused(finished, tmp_path):
    with pytest.raises(ConfigError, match="--format onnx and --format torch take any"):
        export_run(finished[0], form="hf", output=tmp_path)


def test_a_run_shows_images_beside_their_masks(finished):
    path, _, _ = finished
    with Image.open(path / "plots" / "masks.png") as picture:
        assert min(picture.size) > 300
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**20)}
    assert {(128, 0, 0), (0, 128, 0), (128, 128, 0)} <= colours  # disc, square, triangle
