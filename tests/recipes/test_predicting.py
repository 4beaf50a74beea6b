"""``headstart predict`` on a run that was really trained."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from headstart.commands.predict import main


@pytest.fixture
def trained(train, image_folder):
    root = image_folder(classes=("ant", "bee", "crab"), splits={"train": 6, "val": 4}, size=40)
    return root, train("strategy=full", "trainer.max_epochs=1", root=root)


def test_predictions_are_those_of_the_run(trained, tmp_path: Path, capsys):
    root, (run, result) = trained
    (root / "val" / "bee" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    output = tmp_path / "out.csv"
    assert (
        main([str(run.path), str(root / "val"), "--output", str(output), "--device", "cpu", "--batch-size", "5"]) == 0
    )
    with output.open(newline="") as file:
        rows = {Path(row["path"]).relative_to(root).as_posix(): row for row in csv.DictReader(file)}
    with np.load(run.predictions_file("val")) as stored:
        classes = list(stored["classes"])
        assert len(rows) == len(stored["ids"]) == 12
        for name, probabilities in zip(stored["ids"], stored["probabilities"], strict=True):
            row = rows[name]
            predicted = [float(row[f"probability/{label}"]) for label in classes]
            np.testing.assert_allclose(predicted, probabilities, atol=2e-5)
            assert row["class"] == classes[int(np.argmax(probabilities))]
    assert "broken.png" in capsys.readouterr().err
    assert classes == result.data["classes"] == ["ant", "bee", "crab"]


def test_a_run_directory_predicts_after_it_and_its_data_have_moved(trained, tmp_path: Path, capsys):
    root, (run, _) = trained
    image = str(shutil.copy(root / "val" / "ant" / "000.png", tmp_path / "new.png"))
    assert main([str(run.path), image, "--device", "cpu"]) == 0
    before = capsys.readouterr().out
    moved = shutil.copytree(run.path, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "outputs")
    shutil.rmtree(root)
    assert main([str(moved), image, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == before
