"""A teacher is found by its directory, by the folder that holds it, or by a pattern; what it learned identifies it."""

import json
import re
from pathlib import Path

import pytest

from headstart.config import compose, resolve_run
from headstart.errors import ConfigError
from headstart.runs.other_run import find_run, outcome


def run(folder: Path, *, status: str = "done", accuracy: float = 0.9) -> Path:
    folder.mkdir(parents=True)
    result = {"status": status, "fingerprint": "0", "metrics": {"val/acc": accuracy}}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_a_run_is_named_by_its_directory_its_folder_or_a_pattern(tmp_path: Path):
    first = run(tmp_path / "study" / "digits-full-s1-0a")
    assert find_run(str(first), key="k") == first
    assert find_run(str(tmp_path / "study"), key="k") == first
    run(tmp_path / "study" / "digits-full-s10-0b")
    run(tmp_path / "study" / "digits-full-s1-0c", status="failed")
    (tmp_path / "study" / "digits-full-s1-0d").mkdir()  # not finished
    assert find_run(str(tmp_path / "study" / "*-full-s1-*"), key="k") == first


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("absent", "there is no finished run; give a run directory"),
        ("study/*-s3-*", "there is no finished run"),
        ("study/*-broken", "there is no finished run"),
        ("study", "names 2 finished runs; give one of them"),
        ("study/*", "names 2 finished runs"),
    ],
)
def test_no_run_or_several_are_refused(tmp_path: Path, choice: str, words: str):
    run(tmp_path / "study" / "full-s1")
    run(tmp_path / "study" / "full-s2")
    broken = run(tmp_path / "study" / "a-broken")
    (broken / "result.json").write_text("{")
    with pytest.raises(ConfigError, match=f"^strategy.teacher=.*{re.escape(choice)}.*{words}"):
        find_run(str(tmp_path / choice), key="strategy.teacher")


def test_another_outcome_is_another_teacher(tmp_path: Path):
    same = [run(tmp_path / name) for name in ("a", "b")]
    assert outcome(same[0]) == outcome(same[1])
    assert outcome(same[0]) != outcome(run(tmp_path / "c", accuracy=0.8))


def test_a_pattern_may_hold_the_seed(tmp_path: Path):
    teachers = [run(tmp_path / f"full-s{seed}-0", accuracy=seed / 10) for seed in (1, 2)]
    choices = ["strategy=distill", f"strategy.teacher={tmp_path}/full-s${{seed}}-*", "backbone.weights=bundled"]
    resolved = [resolve_run(compose([*choices, f"seed={seed}"])) for seed in (1, 2)]
    assert [Path(one.config["strategy"]["teacher"]) for one in resolved] == teachers
    moved = tmp_path / "moved"
    teachers[0].rename(moved)
    again = resolve_run(compose([*choices[:1], f"strategy.teacher={moved}", choices[2], "seed=1"]))
    assert again.fingerprint == resolved[0].fingerprint != resolved[1].fingerprint
