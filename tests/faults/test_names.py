"""Names as file systems have them, from the folder to the report: other encodings, controls, formulas, markup."""

import csv
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.commands.cli import main

CLASSES = tuple(map(os.fsdecode, (b"caf\xe9", b"\x1b[31mred", b"=cmd|x", b"<svg onload=x>&")))


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    """Twelve images a class; a quarter of them are named in Latin-1, and one more of these is damaged."""
    root, chance = tmp_path / "images", np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for place in range(12):
            file = root / name / os.fsdecode(b"b\xe4r%d.png" % place if place % 4 == 0 else b"%d.png" % place)
            Image.fromarray(chance.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    (root / CLASSES[0] / os.fsdecode(b"kaputt_\xfc.png")).write_bytes(b"\x89PNG no image")
    return root


def without_controls(text: str) -> bool:
    return not [letter for letter in text if ord(letter) < 32 and letter not in "\n\r\t"]


@pytest.mark.slow
def test_odd_names_go_all_the_way(odd_names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (
        "datamodule=folder",
        f"datamodule.root={odd_names}",
        "datamodule.image_size=32",
        "datamodule.num_workers=0",
        "datamodule.test_fraction=0.2",
        "backbone=small_cnn",
        "backbone.weights=none",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        f"paths.output_dir={tmp_path / 'outputs'}",
        f"paths.cache_dir={tmp_path / 'cache'}",
        "logger=tensorboard",
        "name=odd",
    )
    runs = [headstart.train(*common, f"strategy={name}") for name in ("freeze", "full")]
    assert runs[0].result.data["classes"] == sorted(CLASSES)
    assert runs[0].result.data["skipped_count"] == 1
    study, path = tmp_path / "outputs" / "odd", str(runs[1].path)

    assert main(["report", str(study)]) == 0
    assert main(["runs", str(study)]) == 0
    assert main(["export", path, "--output", str(tmp_path / "exported")]) == 0
    assert main(["predict", path, str(odd_names), "--output", str(tmp_path / "new.csv")]) == 0
    said = "".join(capsys.readouterr())
    assert without_controls(said)
    assert r"kaputt_\xfc.png" in said

    with (tmp_path / "new.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    assert all(Path(row["path"]).exists() for row in rows)
    assert {row["class"].removeprefix("'") for row in rows} <= {*CLASSES}
    tables = [*study.rglob("report/*.csv"), study / "runs.csv", *study.rglob("plots/*.csv")]
    for table in tables:
        text = table.read_text("utf-8")
        assert without_controls(text), table
        assert not [cell for row in csv.reader(text.splitlines()) for cell in row if cell.startswith("=")], table
    assert any("'=cmd|x" in table.read_text("utf-8") for table in tables)
    for plot in study.rglob("*.svg"):
        ElementTree.parse(plot)
    page = (study / "report.html").read_text("utf-8")
    assert "<svg onload" not in page
    assert without_controls(page)
    assert len(list(study.rglob("plots/*.png"))) > 2
