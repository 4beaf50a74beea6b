"""Heads in closed form through whole runs: what is left behind is what any other run leaves behind."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headstart.commands.predict import main as predict
from headstart.errors import AuditError, CacheError, ConfigError
from headstart.execution.load import load
from headstart.runs.directory import find_runs
from headstart.runs.result import read_metrics_csv
from headstart.training.audit import Audit

HEADS = ("logreg", "knn", "ncm", "ridge")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_the_command_leaves_a_complete_run(call, tiny, tmp_path: Path):
    choices = [*tiny, "head=logreg", "head.refit=true", "export=true", "callbacks.plots=true", "head.l2=[1,0.01]"]
    done = call(*choices)
    assert done.returncode == 0, done.stderr
    (path,) = find_runs(tmp_path / "outputs")
    values = json.loads((path / "result.json").read_text())
    assert values["status"] == "done"
    assert values["metrics"]["val/acc"] > 0.6  # 0.1 by chance
    assert values["metrics"]["test/acc"] > 0.6
    assert values["params"] == {"total": 11_176_512 + 5130, "trainable": 5130, "stored": 5130}
    assert values["cost"]["images_seen"] == 80
    assert values["cache"]["used"]
    assert (values["config"]["head"], values["config"]["optimizer"], values["config"]["max_epochs"]) == (
        "logreg",
        "none",
        1,
    )
    solved = values["details"]["closed_form"]
    assert [entry["l2"] for entry in solved["path"]] == [1, 0.01]
    best = max(solved["path"], key=lambda entry: (entry["val/acc"], entry["l2"]))
    assert solved["value"] == best["l2"]
    # What validation says is of the training images alone; the model that is kept has seen more.
    assert values["metrics"]["val/acc"] == pytest.approx(best["val/acc"])
    assert solved["images"] == 80 + values["data"]["sizes"]["val"]

    (row,) = read_metrics_csv(path / "metrics.csv")
    assert row["val/acc"] == pytest.approx(values["metrics"]["val/acc"], abs=1e-6)
    assert row["phase"] == "closed form"
    assert row["train/acc"] > 0.9
    audit = json.loads((path / "audit.json").read_text())
    assert audit["ok"]
    for stage in audit["stages"]:
        assert (stage["changed_tensors"] == 0) is (stage["name"] != "head")
        assert (stage["digest_before"] == stage["digest_after"]) is (stage["name"] != "head")
    assert {name for name in weights(path) if "backbone" in name} == set()  # what is frozen lies in one shared file
    with np.load(path / "predictions_val.npz") as stored:
        right = (stored["probabilities"].argmax(1) == stored["targets"]).mean()
        assert right == pytest.approx(values["metrics"]["val/acc"])
    assert (path / "plots" / "confusion.png").exists()

    classifier = load_file(next(path.glob("export*classifier*.safetensors")))
    assert torch.equal(classifier["weight"], weights(path)["model.head.linear.weight"])

    stamp = (path / "result.json").stat().st_mtime_ns
    again = call(*choices, "trainer.max_epochs=7")  # epochs mean nothing here
    assert again.returncode == 0, again.stderr
    assert (path / "result.json").stat().st_mtime_ns == stamp
    assert find_runs(tmp_path / "outputs") == [path]


@pytest.mark.parametrize("head", HEADS)
def test_a_loaded_run_says_what_the_run_said(train, image_folder, head: str, tmp_path: Path):
    root = image_folder(classes=("ant", "bee", "crab"), splits={"train": 6, "val": 4, "test": 3}, size=40)
    more = ("head.k=[1,5]",) if head == "knn" else ()
    run, result = train(f"head={head}", "cache=off", *more, root=root)
    assert result.cache["used"] is False
    output = tmp_path / "out.csv"
    assert predict([str(run.path), str(root / "test"), "--output", str(output), "--device", "cpu"]) == 0
    with output.open(newline="") as file:
        rows = {Path(row["path"]).relative_to(root).as_posix(): row for row in csv.DictReader(file)}
    with np.load(run.predictions_file("test")) as stored:
        for name, probabilities in zip(stored["ids"], stored["probabilities"], strict=True):
            predicted = [float(rows[name][f"probability/{label}"]) for label in result.data["classes"]]
            np.testing.assert_allclose(predicted, probabilities, atol=2e-4)
    if head == "knn":
        assert load(run.path).network.head.bank.shape == (18, 512)
        assert result.params["stored"] == 18 * 512 + 18 + 1


@pytest.mark.slow
@pytest.mark.parametrize("head", ["logreg", "knn"])
def test_stored_activations_and_images_give_the_same(train, head: str):
    more = ("head.l2=[1,0.1]",) if head == "logreg" else ("head.k=[1,5]",)
    stored, images = train(f"head={head}", *more), train(f"head={head}", *more, "cache=off", output="images")
    assert stored.result.cache["used"]
    assert not images.result.cache["used"]
    assert stored.run.path.name == images.run.path.name
    for split in ("val", "test"):
        with np.load(stored.run.predictions_file(split)) as a, np.load(images.run.predictions_file(split)) as b:
            np.testing.assert_allclose(a["probabilities"], b["probabilities"], atol=2e-3)


def test_what_validation_holds_changes_the_kept_model_only_through_the_refit(train, image_folder):
    """Two data sets that share their training and test images and differ in validation."""
    roots = [image_folder(splits={"train": 6, "val": 4, "test": 3}, name=name) for name in ("one", "two")]
    from PIL import Image

    for number, path in enumerate(sorted((roots[1] / "val").rglob("*.png"))):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3)).astype("uint8")
        Image.fromarray(noise).save(path)
    for refit in ("false", "true"):
        runs = [
            train("head=ridge", "head.l2=1", f"head.refit={refit}", root=root, output=f"{root.name}-{refit}")
            for root in roots
        ]
        kept = [weights(run.path)["model.head.linear.weight"] for run, _ in runs]
        assert torch.equal(*kept) is (refit == "false")
        # Noise among the validation images says nothing of ant and bee; it is scored by what has not seen it.
        assert runs[0].result.metrics["val/acc"] == 1.0
        assert runs[1].result.metrics["val/acc"] < 1.0


@pytest.mark.parametrize("head", HEADS)
def test_one_sigmoid(train, image_folder, head: str):
    root = image_folder(splits={"train": 6, "val": 4})
    more = ("head.k=[1,3]",) if head == "knn" else ()
    result = train(f"head={head}", "task=binary", *more, root=root).result
    assert result.metrics["val/acc"] == 1.0


def test_a_solution_that_touches_the_backbone_fails_the_audit(train, monkeypatch: pytest.MonkeyPatch):
    """The proof is a real one: a frozen weight changed while solving is found."""
    see = Audit.see_solution

    def meddle(self: Audit) -> None:
        with torch.no_grad():
            next(self.model.backbone.parameters()).add_(1e-3)
        see(self)

    monkeypatch.setattr(Audit, "see_solution", meddle)
    with pytest.raises(AuditError, match="frozen"):
        train("head=ncm")


def test_a_head_that_was_never_solved_for_fails_the_audit(train, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Audit, "see_solution", lambda self: None)
    with pytest.raises(AuditError, match=r"trainable parameter head\.linear\.bias never received"):
        train("head=ncm")


def test_an_interrupted_solution_leaves_nothing_that_looks_finished(
    train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    whole = train("head=ncm", output="whole")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("headstart.frozen.closed_form.solve", stop)
        with pytest.raises(KeyboardInterrupt):
            train("head=ncm")
    (path,) = (tmp_path / "outputs" / "runs").glob("digits-*")
    assert not (path / "result.json").exists()
    assert not list((path / "checkpoints").glob("*.ckpt"))
    run, result = train("head=ncm")
    assert run.path == path
    assert result.metrics == whole.result.metrics


def test_cache_require_is_held_to(train):
    with pytest.raises(CacheError, match="limit_train_batches"):
        train("head=ncm", "cache=require", "trainer.limit_train_batches=2")


def test_a_users_own_head_says_so_in_its_yaml(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without the key the configuration cannot know, and the run says what to add."""
    with pytest.raises(ConfigError, match="refit"):
        train("head=ncm", "~head.refit")


@pytest.mark.parametrize(("task", "metric"), [("regression", "val/r2"), ("multilabel", "val/map")])
def test_ridge_learns_numbers_and_labels(train, tmp_path: Path, task: str, metric: str):
    """How red and how bright an image is can be read off the features."""
    from PIL import Image

    rng, lines = np.random.default_rng(0), ["path,red,rest" if task == "regression" else "path,labels"]
    for number in range(60):
        red, rest = rng.uniform(0, 255, 2)
        pixels = np.clip(np.array([red, rest, rest]) + rng.normal(0, 10, (24, 24, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
        labels = "|".join(name for name, there in (("red", red > 128), ("bright", rest > 128)) if there)
        lines.append(f"{number:02d}.png,{red:.2f},{rest:.2f}" if task == "regression" else f"{number:02d}.png,{labels}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    table = ("datamodule=csv", f"datamodule.manifest={tmp_path / 'table.csv'}", "datamodule.shots=null")
    run, result = train(*table, "datamodule.val_fraction=0.2", "head=ridge", f"task={task}")
    assert result.metrics[metric] > 0.8
    model = load(run.path).network
    assert model.head.linear.weight.shape == (2, 512)


def test_a_test_split_that_is_not_to_be_looked_at_is_not(train):
    result = train("head=ridge", "strategy=freeze", "trainer.limit_test_batches=0").result
    assert result.status == "done"
    assert not [name for name in result.metrics if name.startswith("test/")]
