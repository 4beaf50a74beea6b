import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import ConfigError
from headstart.execution.predict import Prediction
from headstart.inference.rows import CsvRows, JsonRows, check_output, write_parquet


def test_the_csv_can_be_read_back():
    rows = CsvRows("multiclass", ["a", "b,c"])
    text = rows.header + rows.row(Prediction('x "1", y.png', "b,c", (0.25, 0.75)))
    assert list(csv.reader(io.StringIO(text))) == [
        ["path", "class", "probability/a", "probability/b,c"],
        ['x "1", y.png', "b,c", "0.25", "0.75"],
    ]


def test_names_that_begin_like_a_formula_are_text():
    rows = CsvRows("multiclass", ["=cmd|' /C calc'!A0", "b"])
    row = rows.row(Prediction("@a.png", "=cmd|' /C calc'!A0", (0.9, 0.1)))
    assert row.startswith("'@a.png,'=cmd|")
    assert rows.header.startswith("path,class,probability/=cmd")
    assert CsvRows("regression", ["=a"]).header == "path,'=a\n"


def test_json_lines_have_the_names_as_they_are():
    one = Prediction("=a \udcfc.png", "b", (0.25, 0.75))
    told = {"path": "=a \udcfc.png", "class": "b", "probabilities": {"a": 0.25, "b": 0.75}}
    assert json.loads(JsonRows("multiclass", ["a", "b"]).row(one)) == told
    many = Prediction("m.png", "a|b", (0.5, 0.75))
    assert json.loads(JsonRows("multilabel", ["a", "b"]).row(many))["labels"] == ["a", "b"]
    assert json.loads(JsonRows("multilabel", ["a", "b"]).row(Prediction("m.png", "", (0.1, 0.1))))["labels"] == []
    number = Prediction("n.png", "", (1.5,))
    assert json.loads(JsonRows("regression", ["age"]).row(number)) == {"path": "n.png", "values": {"age": 1.5}}


def test_of_a_mask_the_share_of_each_class_is_written():
    one = Prediction("m.png", "", (0.75, 0.25), np.zeros((2, 2), dtype=np.uint8))
    rows = CsvRows("segmentation", ["road", "=car"])
    assert rows.header + rows.row(one) == "path,share/road,share/=car\nm.png,0.75,0.25\n"
    told = json.loads(JsonRows("segmentation", ["road", "car"]).row(one))
    assert told == {"path": "m.png", "shares": {"road": 0.75, "car": 0.25}}


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression", "segmentation"])
def test_parquet_has_the_columns_of_the_csv(tmp_path: Path, task: str):
    parquet = pytest.importorskip("pyarrow.parquet")
    made = [
        Prediction(f"{number} \udcfc.png", "b" if task.startswith("multi") else "", (0.25, 0.75)) for number in range(3)
    ]
    rows = JsonRows(task, ["a", "b"])
    (tmp_path / "lines").write_text("".join(map(rows.row, made)))
    write_parquet(tmp_path / "lines", tmp_path / "out.parquet", task=task, classes=["a", "b"])
    table = parquet.read_table(tmp_path / "out.parquet")
    assert ",".join(table.column_names) + "\n" == CsvRows(task, ["a", "b"]).header
    assert table.column("path").to_pylist() == [rf"{number} \udcfc.png" for number in range(3)]
    assert table.column(table.column_names[-1]).to_pylist() == [0.75] * 3


def test_an_output_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match=r"out\.xlsx: the suffix names the format: \.csv, \.jsonl"):
        check_output("out.xlsx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'headstart\[parquet\]'"):
        check_output("out.parquet")
    check_output("OUT.CSV")


def test_a_large_quantity_keeps_its_digits():
    one = Prediction("a.png", "", (1700000123.4, 20231231.0))
    assert CsvRows("regression", ["time", "day"]).row(one) == "a.png,1700000123.4,20231231\n"
    assert json.loads(JsonRows("regression", ["time", "day"]).row(one))["values"] == {
        "time": 1700000123.4,
        "day": 20231231,
    }
