"""``headstart evaluate``: new labelled images are scored with the run's model, and the run stays as it is."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.commands.cli import main


def digests(run: Path) -> dict[str, str]:
    files = (path for path in run.rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_new_images_are_scored_and_the_run_stays_as_it_is(
    train: Callable, image_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = train("head=logreg", root=image_folder(classes=("ant", "bee", "cat"))).run.path
    before = digests(run)
    # Fewer classes, so that a class has another position there.
    new = image_folder(classes=("bee", "cat"), splits={"": 7}, name="new")
    (new / "bee" / "broken.png").write_bytes(b"\x89PNG no picture")
    folder = tmp_path / "report"
    choices = ["datamodule=folder", f"datamodule.root={new}", "datamodule.on_bad_image=skip"]
    assert main(["evaluate", str(run), *choices, "--output", str(folder)]) == 0
    assert digests(run) == before
    said = capsys.readouterr().out
    assert "14 images of new (all)" in said
    found = json.loads((folder / "evaluation.json").read_text())
    model = headstart.load(run)
    images = sorted(new.rglob("[0-9]*.png"))
    right = [model.predict(image).label == image.parent.name for image in images]
    acc = found["metrics"]["acc"]
    assert acc["value"] == pytest.approx(np.mean(right))
    assert acc["low"] <= acc["value"] <= acc["high"]
    assert acc["own"] == model.result.metrics["val/acc"]
    assert f"{acc['value']:.4f}" in said
    assert found["skipped"][0]["path"].endswith("bee/broken.png")
    stored = np.load(folder / "predictions.npz")
    assert list(stored["classes"]) == ["ant", "bee", "cat"]
    answers = dict(zip(stored["ids"], stored["probabilities"], strict=True))
    one = images[3]
    assert np.allclose(answers[one.relative_to(new).as_posix()], model.predict(one).probabilities, atol=1e-5)
    with (folder / "worst.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(right) - sum(right)
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert "src=" not in page.replace('src="data:image/', "")  # the page opens without the files beside it
    assert f'<td data-label="value" class="num"><span>{acc["value"]:.4f}</span>' in page
    per_class = dict(zip(model.classes, found["per_class"]["recall"], strict=True))
    assert '<th scope="row">bee</th>' in page
    assert f'<td data-label="recall" class="num"><span>{per_class["bee"]:.3f}</span>' in page
    assert "bee/broken.png" in page
    assert {"confusion.png", "confident_errors.png"} <= {path.name for path in folder.iterdir()}


def test_two_runs_are_compared_image_by_image(
    train: Callable, image_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    root = image_folder(classes=("ant", "bee", "cat"))
    first, second = (train(f"head={head}", "trainer.max_epochs=1", root=root).run.path for head in ("logreg", "linear"))
    new = image_folder(classes=("bee", "cat"), splits={"": 7}, name="new")
    choices = ["datamodule=folder", f"datamodule.root={new}", "--output", str(tmp_path / "report")]
    assert main(["evaluate", str(first), *choices, "--with", str(second), "--with", str(first)]) == 0
    said = capsys.readouterr().out
    assert f"Minus {second.name}, on the same images:" in said
    found = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    other, same = found["compared"]
    assert other["run"] == second.name
    images = sorted(new.rglob("*.png"))
    right = [
        np.array([headstart.load(run).predict(image).label == image.parent.name for image in images])
        for run in (first, second)
    ]
    acc = other["metrics"]["acc"]
    assert acc["first"] - acc["second"] == pytest.approx(right[0].mean() - right[1].mean())
    assert acc["low"] < acc["first"] - acc["second"] < acc["high"]
    loss = other["metrics"]["loss"]
    assert loss["low"] <= loss["first"] - loss["second"] <= loss["high"]
    assert same["metrics"]["loss"]["low"] == same["metrics"]["loss"]["high"] == 0
    # Two models that agree on all of these images may differ on others.
    assert same["metrics"]["acc"]["low"] < 0 < same["metrics"]["acc"]["high"]
    assert f"Minus {second.name}, on the same images" in (tmp_path / "report" / "report.html").read_text()


def test_what_cannot_be_scored_is_told_in_a_line(
    train: Callable, image_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = train("head=logreg", root=image_folder()).run.path
    new = image_folder(classes=("ant", "wasp"), splits={"": 5}, name="new")
    there = ["datamodule=folder", f"datamodule.root={new}"]
    for wrong, words in (
        (["strategy=full"], "strategy is of no use here"),
        (["datamodule=folder", f"datamodule.root={tmp_path / 'nowhere'}"], "there is no such folder"),
        ([str(new)], "has wasp, which the model does not know; it knows ant, bee"),
        ([*there], "has wasp, which the model does not know; it knows ant, bee"),
        ([*there, "--split", "test"], "has no such split of its own, only train"),
    ):
        assert main(["evaluate", str(run), *wrong, "--output", str(tmp_path / "report")]) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
