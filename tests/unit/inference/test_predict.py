"""The command, with a model that tells bright images from dark ones."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from headstart.commands.predict import main


def test_the_command_writes_the_csv_and_reports_what_it_skipped(run_path: Path, folder: Path, tmp_path: Path, capsys):
    output = tmp_path / "predictions.csv"
    assert main([str(run_path), str(folder), "--output", str(output), "--device", "cpu"]) == 0
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [row["class"] for row in rows] == ["bright", "dark", "bright"]
    assert float(rows[0]["probability/bright"]) + float(rows[0]["probability/dark"]) == pytest.approx(1)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "broken.jpg cannot be read" in streams.err
    assert "3 images classified" in streams.err
    assert "1 unreadable" in streams.err
    assert "bright       2" in streams.err
    assert [path.name for path in tmp_path.glob("predictions*")] == ["predictions.csv"]


def test_json_lines_say_the_same(run_path: Path, folder: Path, tmp_path: Path):
    for name in ("out.csv", "out.jsonl"):
        assert main([str(run_path), str(folder), "--output", str(tmp_path / name), "--device", "cpu"]) == 0
    table = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    listed = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["path"], row["class"]) for row in table] == [(row["path"], row["class"]) for row in listed]
    assert [float(row["probability/dark"]) for row in table] == [row["probabilities"]["dark"] for row in listed]


def test_parquet_is_written_where_its_library_is(run_path: Path, folder: Path, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "out.parquet"
    assert main([str(run_path), str(folder), "--output", str(output), "--device", "cpu"]) == 0
    assert parquet.read_table(output).column("class").to_pylist() == ["bright", "dark", "bright"]
    assert [path.name for path in tmp_path.glob("out.*")] == ["out.parquet"]


def test_without_an_output_the_csv_goes_to_standard_output_alone(run_path: Path, folder: Path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{folder / 'a.png'}\n"))
    assert main([str(run_path), "-", "--device", "cpu"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header == "path,class,probability/bright,probability/dark"
    assert row.startswith(f"{folder / 'a.png'},bright,")


def test_nothing_readable_is_a_failure(run_path: Path, folder: Path, capsys, tmp_path: Path):
    output = tmp_path / "out.csv"
    assert main([str(run_path), str(folder / "broken.jpg"), "--device", "cpu", "--output", str(output)]) == 1
    assert "0 images classified" in capsys.readouterr().err
    assert list(tmp_path.glob("out.csv*")) == []


def test_a_batch_holds_an_image_at_least(run_path: Path, folder: Path, capsys):
    with pytest.raises(SystemExit):
        main([str(run_path), str(folder), "--batch-size", "0"])
    assert "--batch-size: 0 must be at least 1" in capsys.readouterr().err


def test_runs_before_the_images_are_an_ensemble(run_path: Path, folder: Path, tmp_path: Path, capsys, monkeypatch):
    import headstart.execution.load

    other = tmp_path / "outputs" / "other"
    shutil.copytree(run_path, other)
    model = headstart.execution.load.load(run_path)
    loaded: list[Path] = []
    monkeypatch.setattr(headstart.execution.load, "load", lambda path: loaded.append(path) or model)
    assert main([str(run_path), str(other), str(folder), "--tta", "flip", "--device", "cpu"]) == 0
    assert loaded == [run_path, other]
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(SystemExit):
        main([str(run_path), str(other)])
    assert "other is a run; give images after it" in capsys.readouterr().err
