"""Whatever a file holds, its reader gives what is there or an error of this package, and never another one."""

import csv
import io
import json
import math
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.config.foreign import foreign_component
from headstart.data import WebDataset
from headstart.data.input_spec import InputSpec
from headstart.data.manifest import Columns, Kind, read_manifest
from headstart.data.segmentation.masks import read_mask
from headstart.errors import CacheError, DataError, HeadstartError, RunError, WeightsError
from headstart.execution.load import load
from headstart.inference.features import read_features
from headstart.inference.inputs import find_images
from headstart.ranking.journal import Journal
from headstart.runs.directory import RunDirectory
from headstart.runs.reader import read_config, read_predictions, read_run
from headstart.runs.result import read_metrics_csv, read_result
from headstart.store.entry import Meta
from headstart.study import report
from headstart.study.report import LIST
from headstart.study.tuning import TUNING_FILE, read_tuning
from headstart.training.checkpoints import _read as read_checkpoint
from headstart.weights.cards import header_card, read_card
from headstart.weights.loading import read_state

bounded = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_ODD = st.sampled_from(
    [math.nan, math.inf, 1e300, -1, 10**40, "", "\0", "\x1b[31m", "\udce9", "=1+1", [], {}, None, True]
)
_JSON = st.recursive(
    _ODD | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with some bytes changed, cut out or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from([0, 1, 1, 2, 50]))
        data[place : place + length] = draw(st.binary(max_size=12))
    return bytes(data)


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """A structure with one value, somewhere, replaced or removed."""
    if isinstance(whole, dict) and whole and draw(st.integers(0, 6)):
        key = draw(st.sampled_from(sorted(whole)))
        if not draw(st.integers(0, 5)):
            return {name: value for name, value in whole.items() if name != key}
        return {**whole, key: draw(changed(whole[key]))}
    if isinstance(whole, list) and whole and draw(st.booleans()):
        place = draw(st.integers(0, len(whole) - 1))
        return [*whole[:place], draw(changed(whole[place])), *whole[place + 1 :]]
    return draw(_ODD | _JSON)


RESULT: dict[str, Any] = {
    "format": 1,
    "status": "done",
    "fingerprint": "0123456789",
    "error": None,
    "metrics": {"val/acc": 0.5, "test/acc": None},
    "config": {
        **dict.fromkeys(("backbone", "head", "strategy", "datamodule", "optimizer", "scheduler"), "x"),
        "seed": 1,
        "max_epochs": 2,
        "overrides": ["seed=1"],
    },
    "weights": {"source": "none", "sha256": "", "matched": 0, "missing": []},
    "data": {"name": "x", "fingerprint": "x", "classes": ["a", "b"], "sizes": {"train": 2, "val": 2}},
    "params": {"total": 2, "trainable": 1},
    "cost": {"fit_seconds": 1.0, "total_seconds": 2.0, "peak_memory_bytes": 3, "images_seen": 4, "device": "cpu"},
    "cache": {"used": False, "key": "", "hit": False, "reason": ""},
    "versions": {},
    "details": {"monitor": "val/acc", "cut_short": []},
}


def survives(read: Callable[[], Any], *errors: type[HeadstartError]) -> Any:
    """What a reader gives, or None after an error of these kinds that says something; another one fails the test."""
    try:
        return read()
    except errors as error:
        assert str(error).strip()  # noqa: PT017
        return None


def read_everything(path: Path) -> None:
    """All that the commands ask of a run."""
    run = read_run(path)
    assert run.status in ("done", "failed", "partial", "unreadable")
    assert run.status == "done" or run.reason
    for _ in (run.choices, run.composed, run.metrics, run.costs, run.history, run.drift, run.seed):
        pass
    assert all(math.isfinite(value) for value in (*run.metrics.values(), *run.costs.values()))
    run.predictions("val")


@bounded
@given(st.data())
def test_a_result_of_any_values(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "result.json").write_text(json.dumps(data.draw(changed(RESULT))))
    survives(lambda: read_result(tmp_path), RunError)
    read_everything(tmp_path)


@bounded
@given(st.data())
def test_a_result_of_any_bytes(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "result.json").write_bytes(data.draw(damaged(json.dumps(RESULT).encode()) | st.binary()))
    survives(lambda: read_result(tmp_path), RunError)
    read_everything(tmp_path)


def parts() -> dict[str, bytes]:
    """The other files of a run, whole."""
    audit = {"stages": [{"name": "stem", "drift_relative": 0.5}]}
    attempts = {"fingerprint": "0123456789", "attempts": [{"cost": {"fit_seconds": 1.0}, "ended": True}]}
    arrays, stream = io.BytesIO(), {"ids": np.array(["a", "b"]), "targets": np.array([0, 1])}
    np.savez_compressed(arrays, **stream, probabilities=np.eye(2), classes=np.array(["a", "b"]))
    return {
        "config.yaml": yaml.safe_dump(
            {"seed": 1, "head": {"_target_": "headstart.heads.Linear"}, "a": [1, {"b": 2}]}
        ).encode(),
        "metrics.csv": b"epoch,val/acc,train/loss\n0,0.5,1.5\n1,0.75,1.25\n",
        "audit.json": json.dumps(audit).encode(),
        "attempts.json": json.dumps(attempts).encode(),
        "predictions_val.npz": arrays.getvalue(),
    }


@pytest.mark.parametrize("name", sorted(parts()))
@bounded
@given(st.data())
def test_any_other_file_of_a_run(tmp_path: Path, name: str, data: st.DataObject) -> None:
    for part, content in parts().items():
        (tmp_path / part).write_bytes(content)
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    (tmp_path / name).write_bytes(data.draw(damaged(parts()[name]) | st.binary()))
    read_everything(tmp_path)
    config = survives(lambda: read_config(tmp_path), RunError)
    if config is not None:
        survives(lambda: foreign_component(config, "head", tmp_path), RunError)
    survives(lambda: read_metrics_csv(tmp_path / "metrics.csv"), RunError)
    survives(lambda: read_predictions(tmp_path / "predictions_val.npz"), RunError)


CONFIG: dict[str, Any] = {
    "seed": 1,
    "backbone": {"_target_": "headstart.backbones.SmallCNN", "weights": "none", "in_channels": 3},
    "head": {"_target_": "headstart.heads.Linear", "dropout": 0.0},
    "strategy": {"_target_": "headstart.strategies.Full", "backbone_lr_mult": 1.0},
}
DETAILS: dict[str, Any] = {
    "task": "multiclass",
    "task_record": {},
    "input_spec": InputSpec(height=8, width=8).as_dict(),
}


@bounded
@given(st.data())
def test_a_model_of_any_choices(tmp_path: Path, data: st.DataObject) -> None:
    """It has no weights, so that a run that says what its model is still ends with an error."""
    result = {**RESULT, "details": DETAILS}
    small = st.sampled_from([(changed(CONFIG), st.just(result)), (st.just(CONFIG), changed(result))])
    for name, values in zip(("config.yaml", "result.json"), data.draw(small), strict=True):
        (tmp_path / name).write_text(json.dumps(data.draw(values)))
    assert survives(lambda: load(tmp_path), HeadstartError) is None


_CELLS = st.sampled_from(
    ["a.png", "./a.png", "b/../a.png", "", "x", "0", "1", "-1e400", "nan", "1e39", "a|b", "train", '"', ";", "\t"]
)


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
@bounded
@given(
    rows=st.lists(st.lists(_CELLS | st.text(max_size=4), max_size=4), max_size=6),
    header=st.lists(st.sampled_from(["path", "label", "split", "", "2", "path"]), max_size=4),
    separator=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"]),
    declared=st.booleans(),
)
def test_a_table_of_any_lines(
    tmp_path: Path, kind: Kind, rows: list[list[str]], header: list[str], separator: str, encoding: str, declared: bool
) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([header, *rows])
    given_text = f"sep={separator}\n" * declared + text.getvalue()
    file = tmp_path / "table.csv"
    file.write_bytes(given_text.encode(encoding, errors="replace"))
    table = survives(lambda: read_manifest(file, Columns(), kind), DataError)
    if table is not None:
        assert len(table.paths) == len(table.splits) == len(table.targets) > 0
        assert set(table.splits) <= {"train", "val", "test"}
        assert np.isfinite(table.targets.astype(float)).all()


@bounded
@given(st.data())
def test_a_table_of_any_bytes(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(data.draw(damaged(b"path,label,split\na.png,x,train\nb.png,y,val\n") | st.binary()))
    for kind in ("classes", "labels", "values"):
        survives(lambda kind=kind: read_manifest(file, Columns(), kind), DataError)


def checkpoint() -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(2)}}, file)
    return file.getvalue()


def safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(8)


@bounded
@given(st.data())
def test_weights_of_any_bytes(tmp_path: Path, data: st.DataObject) -> None:
    whole = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"a": "b"}}
    headers = changed(whole).map(lambda header: safetensors(json.dumps(header).encode()))
    for suffix, content in (
        (".safetensors", data.draw(headers | damaged(safetensors(json.dumps(whole).encode())) | st.binary())),
        (".pth", data.draw(damaged(checkpoint()) | st.binary())),
    ):
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        survives(lambda path=path: read_state(path), WeightsError)


@bounded
@given(st.lists(st.text(max_size=8), max_size=3), st.binary(max_size=40))
def test_weights_that_are_some_other_archive(tmp_path: Path, names: list[str], content: bytes) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for place, name in enumerate(names):
            archive.writestr(f"{place}/{name}".encode("utf-8", "replace").decode(), content)
    survives(lambda: read_state(path), WeightsError)


DEEP = b"[" * 100_000


def test_what_is_nested_too_deeply_to_read(tmp_path: Path) -> None:
    for name in ("weights.json", "entry.json", "journal.json"):
        (tmp_path / name).write_bytes(DEEP)
    (tmp_path / "weights.safetensors").write_bytes(safetensors(DEEP))
    assert header_card(tmp_path / "weights.safetensors") == {}
    assert survives(lambda: read_state(tmp_path / "weights.safetensors"), WeightsError) is None
    assert survives(lambda: read_card(tmp_path / "weights.json"), WeightsError) is None
    assert survives(lambda: Meta.read(tmp_path / "entry.json"), CacheError) is None
    assert Journal.open(tmp_path / "journal.json", "x").tried == {}
    (tmp_path / TUNING_FILE).write_bytes(DEEP)
    assert read_tuning(tmp_path) == {}
    (tmp_path / LIST).write_bytes(DEEP)
    with report._plots(tmp_path):
        pass


LAUGHS = "a0: &a0 {x: 1, y: 1}\n" + "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 40))


@pytest.mark.parametrize("text", [LAUGHS, "a: &a {b: *a}", "a: &a [*a, *a]"])
def test_choices_that_are_more_than_they_look(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    with pytest.raises(RunError, match=r"config\.yaml holds more than 1,000,000 values"):
        read_config(tmp_path)
    read_everything(tmp_path)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shard() -> bytes:
    """A tar file of six images with classes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(6):
            members = {"png": png(np.full((4, 4, 3), 9 * number, np.uint8)), "cls": b"%d" % (number % 2)}
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{number}{chr(0xE4) * (number == 3)}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


SHARD = shard()


@bounded
@given(st.data())
def test_a_tar_file_of_any_bytes(tmp_path: Path, data: st.DataObject) -> None:
    """Numbers in its headers are what it is read by: most changes are there."""
    content = bytearray(data.draw(damaged(SHARD) | st.just(SHARD)))
    for _ in range(data.draw(st.integers(0, 3))):
        header = 512 * data.draw(st.integers(0, len(content) // 512))
        content[header + 124 : header + 136] = data.draw(st.binary(min_size=12, max_size=12))
        content[header + 156 : header + 157] = data.draw(st.sampled_from([b"0", b"5", b"x", b"g", b"L", b"S"]))
        content[header + 148 : header + 156] = b" " * 8
        total = f"{sum(content[header : header + 512]) % 0o777777:06o}\0 "
        content[header + 148 : header + 156] = total.encode()
    (tmp_path / "0.tar").write_bytes(content)
    choices = {"batch_size": 4, "seed": 0, "num_workers": 0, "memory_path": tmp_path / "memory"}
    survives(lambda: WebDataset(root=tmp_path, **choices).prepare(), DataError)


@bounded
@given(st.data())
def test_a_mask_of_any_bytes(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(data.draw(damaged(png(np.eye(9, dtype=np.uint8))) | st.binary()))
    mask = survives(lambda: read_mask(path), DataError)
    assert mask is None or (mask.dtype == np.uint8 and mask.ndim == 2)


@bounded
@given(st.data())
def test_a_table_of_images_to_predict_of_any_bytes(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "table.csv"
    whole = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]).map("path;n\na.png;1\n\u00e4.png;2\n".encode))
    path.write_bytes(data.draw(damaged(whole) | st.binary()))
    survives(lambda: list(find_images([path])), DataError)


def test_a_header_longer_than_the_library_reads(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("x" * 200_000 + ",path\na.png\n")
    with pytest.raises(DataError, match=r"table.csv cannot be read, line 1: field larger than field limit"):
        list(find_images([tmp_path / "table.csv"]))


@bounded
@given(st.data())
def test_stored_features_of_any_bytes(tmp_path: Path, data: st.DataObject) -> None:
    whole = io.BytesIO()
    np.savez(whole, ids=np.array(["a", "b"]), features=np.eye(2, dtype=np.float32), source=np.array("x"))
    path = tmp_path / "features.npz"
    path.write_bytes(data.draw(damaged(whole.getvalue()) | st.binary()))
    survives(lambda: read_features(path), DataError)


@pytest.mark.parametrize("place", [6, 8])
def test_an_archive_that_is_encrypted_or_packed_otherwise(tmp_path: Path, place: int) -> None:
    """Bits of its flags, or its method, in the header of each member and in the directory at the end."""
    whole = io.BytesIO()
    np.savez(whole, ids=np.array(["a"]), features=np.eye(1), source=np.array("x"), targets=np.array([0]))
    content = bytearray(whole.getvalue())
    for mark, further in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = content.find(mark)
        while at >= 0:
            content[at + place + further] |= 1
            at = content.find(mark, at + 4)
    path = tmp_path / "features.npz"
    path.write_bytes(content)
    for read, error in ((read_features, DataError), (read_predictions, RunError)):
        assert survives(lambda read=read: read(path), error) is None


NO_FILES = ("result.json", "config.yaml", "metrics.csv", "audit.json", "attempts.json", "predictions_val.npz")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    """A pipe gives nothing, and /dev/zero never ends."""

    def place(name: str) -> Path:
        path = tmp_path / name
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
        return path

    for name in NO_FILES:
        for part, content in (parts() | {"result.json": json.dumps(RESULT).encode()}).items():
            (tmp_path / part).unlink(missing_ok=True)
            (tmp_path / part).write_bytes(content)
        place(name)
        read_everything(tmp_path)
        survives(lambda: RunDirectory(tmp_path, "0123456789").attempts(), RunError)
    for name, read, error in (
        ("result.json", read_result, RunError),
        ("config.yaml", lambda path: read_config(path.parent), RunError),
        ("metrics.csv", read_metrics_csv, RunError),
        ("predictions_val.npz", read_predictions, RunError),
        ("features.npz", read_features, DataError),
        ("table.csv", lambda path: list(find_images([path])), DataError),
        ("table.csv", lambda path: read_manifest(path, Columns(), "classes"), DataError),
        ("card.json", read_card, WeightsError),
        ("entry.json", Meta.read, CacheError),
        ("best.ckpt", read_checkpoint, RunError),
    ):
        with pytest.raises(error, match=f"is a {kind}, not a file"):
            read(place(name))
    assert header_card(place("card.safetensors")) == {}
    assert Journal.open(place("advice.json"), "x").tried == {}
    assert read_tuning(place(TUNING_FILE).parent) == {}
    with report._plots(place(LIST).parent):
        pass
