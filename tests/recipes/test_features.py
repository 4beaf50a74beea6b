"""``headstart features`` and ``headstart similar``, from a run and from a pretrained backbone."""

from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.commands.cli import main


def test_features_are_the_runs_and_find_the_same_class(train, image_folder, tmp_path: Path, capsys, monkeypatch):
    root = image_folder(classes=("ant", "bee"), splits={"train": 6, "val": 4}, size=40)
    run = train("strategy=full", "trainer.max_epochs=1", root=root).run.path
    output = tmp_path / "features.npz"
    assert main(["features", str(run), str(root / "val"), "--output", str(output), "--device", "cpu"]) == 0
    with np.load(output) as file:
        ids, vectors = file["ids"].tolist(), file["features"]
    assert len(ids) == 8
    np.testing.assert_allclose(vectors, headstart.load(run).features(ids, device="cpu").numpy(), atol=1e-5)

    image, page = str(root / "train" / "bee" / "000.png"), tmp_path / "page.html"
    command = ["similar", str(run), image, "--count", "4", "--output", str(page), "--device", "cpu", "--among"]
    capsys.readouterr()
    found = []
    for among in (str(root / "val"), str(output)):
        assert main([*command, among]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        assert [float(cosine) for cosine, _ in lines] == sorted((float(cosine) for cosine, _ in lines), reverse=True)
        found.append([path for _, path in lines])
    assert found[0] == found[1]
    assert {Path(path).parent.name for path in found[0]} == {"bee"}
    assert "bee/000.png" in page.read_text()


@pytest.mark.slow
def test_a_pretrained_backbone_needs_no_run(image_folder, tmp_path: Path, capsys):
    root = image_folder()
    output = tmp_path / "features.npz"
    chosen = ["backbone=resnet18", "backbone.weights=bundled"]
    assert main(["features", *chosen, str(root), "--output", str(output), "--device", "cpu"]) == 0
    assert "20 images, 512 numbers each" in capsys.readouterr().out
    with np.load(output) as file:
        assert "bundled:" in str(file["source"])
        assert np.isfinite(file["features"]).all()
    assert main(["features", *chosen, "--output", str(output)]) == 1
    assert "error: give images after backbone.weights=bundled" in capsys.readouterr().err
