"""``headstart features`` and ``headstart similar``, from a run and from a pretrained backbone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.commands.cli import main
from headstart.inference.features import read_features


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


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_a_run_has_stored_is_read(
    precision: str, train, image_folder, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    root = image_folder(size=40)
    choices = ["strategy=freeze", "datamodule.augment=none", f"trainer.precision={precision}"]
    run = train(*choices, "trainer.max_epochs=1", root=root).run.path
    new = root / "val" / "bee" / "new.png"
    Image.new("RGB", (50, 40), (9, 90, 200)).save(new)
    command = [str(run), str(root), "--device", "cpu", "--precision", "run", "--batch-size", "8"]
    assert main(["features", *command, "--output", str(tmp_path / "stored.npz")]) == 0
    assert "20 of them were read from stored activations" in capsys.readouterr().out
    monkeypatch.setenv("HEADSTART_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert main(["features", *command, "--output", str(tmp_path / "made.npz")]) == 0
    assert "stored" not in capsys.readouterr().out.partition("\n")[2]
    stored, made = (read_features(tmp_path / name) for name in ("stored.npz", "made.npz"))
    assert (stored.ids, stored.source) == (made.ids, made.source)
    assert len(stored.ids) == 21
    assert stored.source.endswith(precision) == (precision != "32-true")
    # bfloat16 keeps 8 bits, and batches of other sizes round in another order.
    tolerance = 1e-5 if precision == "32-true" else 2e-2
    np.testing.assert_allclose(stored.vectors, made.vectors, rtol=tolerance, atol=tolerance)


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
