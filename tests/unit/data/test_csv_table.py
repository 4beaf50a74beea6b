"""Images listed in a table."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.data import CSV, InputSpec
from headstart.data.manifest import Columns, read_manifest, sorts_by_number
from headstart.errors import DataError

SPLITS = ("train", "train", "train", "val", "val", "test")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    for number in range(6):
        Image.new("RGB", (10, 10), (number * 40, 0, 0)).save(tmp_path / "a" / f"{number}.png")
    return tmp_path


def table(folder: Path, header: str, *lines: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def data(manifest: Path, task: str = "auto", **choices) -> CSV:
    return CSV(manifest=manifest, batch_size=4, seed=0, task=task, **({"image_size": 8, "num_workers": 0} | choices))


def test_numbers_become_rows_of_targets(images: Path):
    lines = [f"a/{n}.png,{n * 1.5},{-n},{split}" for n, split in enumerate(SPLITS)]
    module = data(table(images, "path,age,height,split", *lines), "regression")
    module.configure(InputSpec())
    assert module.classes == ("age", "height")
    assert module.sizes == {"train": 3, "val": 2, "test": 1}
    np.testing.assert_array_equal(module.targets("val"), np.array([[4.5, -3], [6, -4]], dtype=np.float32))
    (batch,) = module.test_dataloader()
    assert torch.equal(batch["targets"], torch.tensor([[7.5, -5.0]]))
    assert module.summary()["target_ranges"]["train"] == [[0.0, 1.5, 3.0], [-2.0, -1.0, 0.0]]
    chosen = data(images / "list.csv", "regression", target_columns=["height"])
    assert (chosen.classes, chosen.targets("test").tolist()) == (("height",), [[-5.0]])


def test_another_target_is_other_data(images: Path):
    prints = []
    for value in (1, 2):
        lines = [f"a/{n}.png;{value if n == 0 else n};{split}" for n, split in enumerate(SPLITS)]
        prints.append(data(table(images, "path;y;split", *lines), "regression").summary()["fingerprint"])
    assert prints[0] != prints[1]


def test_classes_and_labels_are_in_the_order_of_their_numbers(images: Path):
    names = ("10", "9", "10", "9", "10", "9")
    manifest = table(images, "path,class", *(f"a/{n}.png,{name}" for n, name in enumerate(names)))
    assert read_manifest(manifest, Columns(), "classes").classes == ("9", "10")
    assert sorts_by_number(manifest, "path")
    tags = table(images, "path,tags", *(f"a/{n}.png,{name}|b" for n, name in enumerate(names)), name="tags.csv")
    assert read_manifest(tags, Columns(), "labels").classes == ("9", "10", "b")


def test_labels_come_from_columns_or_from_one_column(images: Path):
    columns = [f"a/{n}.png,{n % 2},{int(n > 1)},{split}" for n, split in enumerate(SPLITS)]
    names = ("", "odd", "big", "big|odd", "big", "odd | big")
    joined = [f"a/{n}.png,{names[n]},{split}" for n, split in enumerate(SPLITS)]
    first = data(table(images, "path,odd,big,split", *columns, name="one.csv"), "multilabel")
    second = data(table(images, "path,labels,split", *joined, name="two.csv"), "multilabel")
    assert (first.classes, second.classes) == (("odd", "big"), ("big", "odd"))
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(first.targets(split), second.targets(split)[:, ::-1])
    assert first.summary()["class_counts"]["train"] == [1, 1]


def test_classes_are_carved_where_there_is_no_split(images: Path):
    module = data(
        table(images, "file\ty", *(f"a/{n}.png\t{'xy'[n % 2]}" for n in range(6)), name="t.tsv"),
        path_column="file",
        val_fraction=0.3,
    )
    assert module.classes == ("x", "y")
    assert module.sizes == {"train": 4, "val": 2}
    assert sorted(module.targets("val").tolist()) == [0, 1]


def test_a_damaged_image_keeps_the_targets_of_the_others(images: Path):
    (images / "a" / "1.png").write_bytes(b"no image")
    lines = [f"a/{n}.png,{n},{split}" for n, split in enumerate(SPLITS)]
    module = data(table(images, "path,y,split", *lines), "regression")
    assert module.targets("train").ravel().tolist() == [0, 2]
    with pytest.raises(DataError, match="unreadable"):
        data(images / "list.csv", "regression", on_bad_image="raise").prepare()


LINES = ("a/0.png,1,train", "a/1.png,2,train", "a/2.png,3,val")


@pytest.mark.parametrize(
    ("lines", "task", "match"),
    [
        ((*LINES, "a/3.png,many,val"), "regression", "line 5: y=many is not a finite number"),
        ((*LINES, "a/3.png,nan,val"), "regression", "line 5: y=nan"),
        ((*LINES, "a/0.png,1,val"), "regression", "line 5: a/0.png is on line 2 already"),
        ((*LINES, "a/3.png,1,holdout"), "regression", "line 5: split=holdout is not train, val or test"),
        ((*LINES, "./a/0.png,1,val"), "regression", "line 5: ./a/0.png is on line 2 already"),
        ((*LINES, "a/3.png,1"), "regression", "line 5: 2 values for 3 columns"),
        ((*LINES, ",1,val"), "regression", "line 5: path is empty"),
        (
            (*LINES, "a/9.png,1,val"),
            "regression",
            r"1 of 4 images are not in .*: a/9.png \(line 5\); .*datamodule.root",
        ),
        ((*LINES, "a/3.png,inf,val"), "regression", "line 5: y=inf is not a finite number"),
        (
            (*LINES, "a/3.png,9,val"),
            "auto",
            r"train split has no usable image of class 3, 9, as a/2.png \(line 4\) in val is",
        ),
        ((*LINES, "a/3.png,,val"), "auto", "line 5: y is empty"),
        ((), "auto", "no images"),
    ],
)
def test_mistakes_are_told_by_their_line(images: Path, lines, task, match):
    with pytest.raises(DataError, match=match):
        data(table(images, "path,y,split", *lines), task).prepare()


@pytest.mark.parametrize(
    ("choices", "task", "match"),
    [
        ({"path_column": "file"}, "auto", "no column file; it has path, y, z. Set datamodule.path_column"),
        ({"target_columns": ["w"]}, "auto", "no column w"),
        ({}, "auto", r"several columns .*target_columns=\[y\]"),
        ({}, "multilabel", "line 2: z=3 is not 0 or 1"),
        ({"shots": 2}, "regression", "datamodule.fraction"),
        ({"classes": ["1"]}, "regression", "chooses among classes"),
    ],
)
def test_choices_that_do_not_fit_are_told(images: Path, choices, task, match):
    path = table(images, "path,y,z", "a/0.png,1,3", "a/1.png,0,3", "a/2.png,1,4", "a/3.png,1,4")
    with pytest.raises(DataError, match=match):
        data(path, task, **choices).prepare()


def test_a_column_without_a_name_is_no_target(images: Path):
    """What pandas writes as its index would be learned as a number."""
    path = table(images, ",path,y,", "0,a/0.png,5,", "1,a/1.png,6,", "2,a/2.png,7,", "3,a/3.png,8,")
    read = read_manifest(path, Columns(), "values")
    assert read.classes == ("y",)
    assert read.targets.tolist() == [[5], [6], [7], [8]]


def test_a_separator_that_never_occurs_is_told(images: Path):
    path = table(images, "path,tags", '"a/0.png","cat, small"', '"a/1.png","dog, small"')
    with pytest.raises(DataError, match=r"'\|' is on no line of tags \(line 2: cat, small\).*datamodule.separator"):
        read_manifest(path, Columns(), "labels")
    assert read_manifest(path, Columns(separator=","), "labels").classes == ("cat", "dog", "small")


def test_images_without_labels_need_no_separator(images: Path):
    path = table(images, "path,tags", "a/0.png,cat", "a/1.png,")
    assert read_manifest(path, Columns(), "labels").targets.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("start", "encoding"), [("", "utf-16"), ("sep=;\r\n", "utf-8"), ("sep=;\r\n", "utf-8-sig"), ("", "utf-8-sig")]
)
def test_tables_as_spreadsheets_write_them(images: Path, start: str, encoding: str):
    path = images / "sheet.csv"
    path.write_bytes((start + "path;target\r\na/0.png;schön\r\na/1.png;x\r\n").encode(encoding))
    read = read_manifest(path, Columns(), "classes")
    assert read.paths == ["a/0.png", "a/1.png"]
    assert read.classes == ("schön", "x")


def test_another_encoding_is_told_with_its_line(images: Path):
    path = images / "latin.csv"
    path.write_bytes("path,target\na/0.png,x\na/1.png,schön\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8: line 3 holds the byte 0xf6; save it as UTF-8"):
        read_manifest(path, Columns(), "classes")


def test_lines_are_counted_from_the_top_of_the_file(images: Path):
    path = table(images, "sep=;", "path;y", "a/0.png;1", "a/1.png;many")
    with pytest.raises(DataError, match="line 4: y=many"):
        read_manifest(path, Columns(), "values")


def test_times_keep_their_differences(images: Path):
    """In 32 bits, seconds since 1970 are multiples of 128: all of an hour's images would have one target."""
    path = table(images, "path,time,y", *(f"a/{i}.png,{1700000000 + i},{i / 10}" for i in range(4)))
    read = read_manifest(path, Columns(targets=("time",)), "values")
    assert (read.targets[:, 0] - 1700000000).tolist() == [0, 1, 2, 3]
    assert read_manifest(path, Columns(targets=("y",)), "values").targets.dtype == np.float32


def test_numbers_above_those_of_32_bits_are_kept(images: Path):
    path = table(images, "path,y", *(f"a/{i}.png,{i}e38" for i in range(5)))
    assert read_manifest(path, Columns(), "values").targets[:, 0].tolist() == [0, 1e38, 2e38, 3e38, 4e38]


def test_columns_named_by_numbers(images: Path):
    """YAML reads ``target_columns=[10,2]`` as integers."""
    path = table(images, "path,10,2", "a/0.png,1,0", "a/1.png,0,1", "a/2.png,1,1", "a/3.png,0,0")
    assert data(path, "multilabel", target_columns=[2, 10]).load().classes == ("2", "10")


def test_targets_reach_the_batch_as_exact_as_they_are(images: Path):
    path = table(
        images, "path,time,split", *(f"a/{i}.png,{1700000000 + i},{'train' if i < 2 else 'val'}" for i in range(4))
    )
    source = data(path, "regression")
    source.prepare()
    source.configure(InputSpec(height=16, width=16))
    assert [int(source.dataset("train")[i]["targets"]) for i in range(2)] == [1700000000, 1700000001]


def test_too_many_pixels_count_as_unreadable(images: Path):
    path = table(images, "path,y,split", *(f"a/{i}.png,{i % 2},{'train' if i < 2 else 'val'}" for i in range(4)))
    with pytest.raises(DataError, match="no usable image"):
        data(path, max_pixels=10).prepare()


def test_a_group_in_two_splits_is_told_by_its_lines(images: Path):
    path = table(images, "path,y,split,who", "a/0.png,1,train,ann", "a/1.png,2,train,bob", "a/2.png,1,val,ann")
    with pytest.raises(
        DataError, match=r"the groups ann have .*, such as a/0.png \(line 2\) and a/2.png \(line 4\), so that"
    ):
        data(path, group_column="who").prepare()


@pytest.mark.parametrize(
    ("choices", "match"), [({"folds": 2, "fold": 2}, "has the folds 0 to 1"), ({"fold": 1}, "null")]
)
def test_a_fold_that_is_none_is_told(images: Path, choices: dict, match: str):
    path = table(images, "path,y", *(f"a/{n}.png,{n % 2}" for n in range(6)))
    with pytest.raises(DataError, match=match):
        data(path, **choices).prepare()


@pytest.mark.parametrize("name", ["list.tsv", "list.TAB"])
def test_tabs_between_the_columns(images: Path, name: str):
    lines = [f"a/{n}.png\tup, down; {n % 2}\t{split}" for n, split in enumerate(SPLITS[:5])]
    module = data(table(images, "path\ty\tsplit", *lines, name=name))
    assert module.classes == ("up, down; 0", "up, down; 1")
    assert module.sizes == {"train": 3, "val": 2}


def test_a_missing_reader_of_parquet_is_named(images: Path, monkeypatch: pytest.MonkeyPatch):
    (images / "list.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"is Parquet, which needs pyarrow: pip install 'headstart\[parquet\]'"):
        data(images / "list.parquet").prepare()


def parquet(folder: Path, **columns: list) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    files.write_table(arrow.table(columns), folder / "list.parquet")
    return folder / "list.parquet"


def test_parquet_is_read_as_the_same_table_in_text(images: Path):
    paths = [f"a/{n}.png" for n in range(6)]
    numbers = {"age": [0, 1.5, 3, 4.5, 6, 7.5], "count": [0, 1, 2, 3, 4, 2**40]}
    found = data(parquet(images, path=paths, split=list(SPLITS), **numbers), "regression")
    lines = [f"a/{n}.png,{split},{numbers['age'][n]},{numbers['count'][n]}" for n, split in enumerate(SPLITS)]
    wanted = data(table(images, "path,split,age,count", *lines), "regression")
    assert found.summary() == wanted.summary()
    labels = data(
        parquet(images, path=paths, split=list(SPLITS), y=[["b"], ["a", "b"], [], ["a"], ["b"], []]), "multilabel"
    )
    assert labels.targets("train").tolist() == [[0, 1], [1, 1], [0, 0]]
    ones = data(parquet(images, path=paths, split=list(SPLITS), a=[True, False] * 3, b=[0.0, 1.0] * 3), "multilabel")
    assert (ones.classes, ones.targets("test").tolist()) == (("a", "b"), [[0, 1]])


@pytest.mark.parametrize(
    ("columns", "task", "match"),
    [
        ({"y": ["c", None, "c"]}, "auto", "list.parquet, row 2: y is empty"),
        ({"y": [1.0, 2.0, float("nan")]}, "regression", "row 3: y=nan is not a finite number"),
        ({"y": [b"c"] * 3}, "auto", "the column y holds binary; .*datamodule=hf"),
        ({"y": [{"a": 1}] * 3}, "auto", "the column y holds struct"),
    ],
)
def test_mistakes_in_parquet_are_told_by_their_row(images: Path, columns: dict, task: str, match: str):
    path = parquet(images, path=[f"a/{n}.png" for n in range(3)], **columns)
    with pytest.raises(DataError, match=match):
        data(path, task).prepare()


def test_a_damaged_parquet_file_is_told(images: Path):
    pytest.importorskip("pyarrow")
    (images / "list.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        data(images / "list.parquet").prepare()
