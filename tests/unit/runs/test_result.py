import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.errors import RunError
from headstart.runs.result import (
    Cost,
    Result,
    failed_result,
    read_metrics_csv,
    read_result,
    to_plain,
    write_result,
)


def test_a_result_comes_back_as_it_was_written(tmp_path: Path, finished):
    write_result(tmp_path, finished(details={"best_epoch": 2}))
    result = read_result(tmp_path)
    assert result.metrics == {"val/acc": 0.5, "test/auroc": None}
    assert result.cost == Cost(fit_seconds=1.5, peak_memory_bytes=7, images_seen=8, device="cpu")
    assert result.data["classes"] == ["0", "1"]
    assert result.details == {"best_epoch": 2}
    assert read_result(tmp_path / "result.json") == result


def test_the_file_is_strict_json_with_flat_metric_names(tmp_path: Path, finished):
    text = write_result(tmp_path, finished()).read_text()
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert values["format"] == 1
    assert values["metrics"] == {"val/acc": 0.5, "test/auroc": None}
    assert values["cost"]["device"] == "cpu"


def test_numbers_of_numpy_and_torch_become_plain_ones():
    value = {"a": np.float32(0.5), "b": torch.tensor([1.0, math.inf]), "c": (np.int64(3), Path("x/y")), 1: {"z", "k"}}
    assert to_plain(value) == {"a": 0.5, "b": [1.0, None], "c": [3, "x/y"], "1": ["k", "z"]}
    assert to_plain(True) is True


def test_an_incomplete_result_is_refused_by_the_names_of_what_is_missing(tmp_path: Path, finished):
    with pytest.raises(RunError, match=r"lacks weights\.sha256, weights\.matched, weights\.missing"):
        write_result(tmp_path, finished(weights={"source": "none"}))
    with pytest.raises(RunError, match="without a metric"):
        write_result(tmp_path, finished(metrics={}))
    with pytest.raises(RunError, match="not numbers: val/acc"):
        write_result(tmp_path, finished(metrics={"val/acc": "high"}))
    assert not (tmp_path / "result.json").exists()


def test_a_failed_result_says_why_in_one_line(tmp_path: Path):
    write_result(tmp_path, failed_result(ValueError("two\n  lines"), fingerprint="f" * 64, params={"total": 3}))
    result = read_result(tmp_path)
    assert (result.status, result.error, result.params) == ("failed", "ValueError: two lines", {"total": 3})
    with pytest.raises(RunError, match="without saying why"):
        write_result(tmp_path, Result(status="failed", fingerprint="f"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1, "stat', "cannot be read"),
        ("[]", "not a result"),
        ('{"status": "done"}', "not a result"),
        ('{"format": 99, "status": "done"}', "format 99"),
        ('{"format": 1, "status": "fine", "fingerprint": "f"}', "status 'fine'"),
        ('{"format": 1, "status": "failed", "error": "x"}', "no fingerprint"),
    ],
)
def test_damaged_and_foreign_files_are_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(RunError, match=message):
        read_result(tmp_path)


def test_a_folder_without_a_result_is_not_a_run(tmp_path: Path):
    with pytest.raises(RunError, match=r"holds no result\.json"):
        read_result(tmp_path)


def test_keys_of_other_versions_are_left_alone(tmp_path: Path, finished):
    values = finished().as_dict() | {"later_section": {"x": 1}}
    values["cost"]["later_key"] = 3
    values["metrics"]["test/auroc"] = None
    (tmp_path / "result.json").write_text(json.dumps(to_plain(values)))
    assert read_result(tmp_path).cost.fit_seconds == 1.5


def test_costs_add_up_and_memory_peaks():
    early = Cost(1, 2, 4, peak_memory_bytes=9, images_seen=10, device="cpu")
    late = Cost(10, 0, 20, peak_memory_bytes=5, images_seen=1)
    assert early.plus(late) == Cost(11, 2, 24, peak_memory_bytes=9, images_seen=11, device="cpu")


def test_metrics_rows_survive_a_torn_line_and_a_repeated_epoch(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,phase,train/loss,val/acc\n0,freeze,1.5,0.25\n1,freeze,nan,\n1,freeze,1.0,0.5\n2,fre")
    assert read_metrics_csv(path) == [
        {"epoch": 0.0, "phase": "freeze", "train/loss": 1.5, "val/acc": 0.25},
        {"epoch": 1.0, "phase": "freeze", "train/loss": 1.0, "val/acc": 0.5},
    ]
    path.write_text("epoch,val/acc\n0,nan\n")
    assert read_metrics_csv(path) == [{"epoch": 0.0, "val/acc": None}]
