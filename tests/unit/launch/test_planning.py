"""From overrides to jobs: what only some of a sweep's jobs have."""

import pytest

from hydra_plugins.headstart._planning import without_absent_keys

HAS = {"linear": {"bias"}, "ridge": {"refit", "l2"}, "knn": {"refit", "k"}}


def absent(row: list[str]) -> str | None:
    head = row[0].partition("=")[2]
    keys = [item.partition("=")[0] for item in row[1:]]
    return next((key for key in keys if key.removeprefix("head.") not in HAS[head]), None)


def test_a_key_is_set_where_it_is(capsys: pytest.CaptureFixture[str]):
    more = ["head.refit=false", "head.l2=1"]
    rows = [[f"head={head}", *more] for head in HAS]
    assert without_absent_keys(rows, absent) == [
        ["head=linear"],
        ["head=ridge", *more],
        ["head=knn", "head.refit=false"],
    ]
    out = " ".join(capsys.readouterr().out.split())
    assert "head.refit is left out of 1 of 3 runs, which have no such key" in out
    assert "head.l2 is left out of 2 of 3 runs" in out


def test_a_key_that_no_job_has_is_left_for_the_message(capsys: pytest.CaptureFixture[str]):
    # One job hides its mistake behind another key that it has not.
    rows = [["head=linear", "head.refit=1", "head.refitt=1"], ["head=ridge", "head.refit=1", "head.refitt=1"]]
    expected = [["head=linear", "head.refitt=1"], rows[1]]
    assert without_absent_keys(rows, absent) == expected
    capsys.readouterr()
    rows = [["head=linear", "head.refitt=false"], ["head=ridge", "head.refitt=false"]]
    assert without_absent_keys(rows, absent) == rows
    assert capsys.readouterr().out == ""
