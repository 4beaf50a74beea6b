"""A teacher is found by its directory, by the folder that holds it, or by a pattern; what it learned identifies it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.config import compose, resolve_run
from headstart.errors import ConfigError, RunError
from headstart.runs.directory import RunDirectory
from headstart.runs.reader import find_finished, outcome
from headstart.runs.result import failed_result, write_result


@pytest.fixture
def run(finished) -> Callable[..., Path]:
    """Writes a finished run, or a failed one, with the same fingerprint each time."""

    def write(folder: Path, *, failed: bool = False, accuracy: float = 0.9) -> Path:
        folder.mkdir(parents=True)
        done = finished(fingerprint="0", metrics={"val/acc": accuracy})
        write_result(folder, failed_result(ValueError("no luck"), fingerprint="0") if failed else done)
        return folder

    return write


def test_a_run_is_named_by_its_directory_its_folder_or_a_pattern(tmp_path: Path, run):
    first = run(tmp_path / "study" / "digits-full-s1-0a")
    assert find_finished(str(first), key="k") == first
    assert find_finished(str(tmp_path / "study"), key="k") == first
    run(tmp_path / "study" / "digits-full-s10-0b")
    run(tmp_path / "study" / "digits-full-s1-0c", failed=True)
    (tmp_path / "study" / "digits-full-s1-0d").mkdir()  # not finished
    assert find_finished(str(tmp_path / "study" / "*-full-s1-*"), key="k") == first


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
def test_no_run_or_several_are_refused(tmp_path: Path, run, choice: str, words: str):
    run(tmp_path / "study" / "full-s1")
    run(tmp_path / "study" / "full-s2")
    broken = run(tmp_path / "study" / "a-broken")
    (broken / "result.json").write_text("{")
    with pytest.raises(ConfigError, match=f"^strategy.teacher=.*{re.escape(choice)}.*{words}"):
        find_finished(str(tmp_path / choice), key="strategy.teacher")


def test_another_outcome_is_another_teacher(tmp_path: Path, run):
    same = [run(tmp_path / name) for name in ("a", "b")]
    assert outcome(same[0]) == outcome(same[1])
    assert outcome(same[0]) != outcome(run(tmp_path / "c", accuracy=0.8))


def test_a_pattern_may_hold_the_seed(tmp_path: Path, run):
    teachers = [run(tmp_path / f"full-s{seed}-0", accuracy=seed / 10) for seed in (1, 2)]
    choices = ["strategy=distill", f"strategy.teacher={tmp_path}/full-s${{seed}}-*", "backbone.weights=bundled"]
    resolved = [resolve_run(compose([*choices, f"seed={seed}"])) for seed in (1, 2)]
    assert [Path(one.config["strategy"]["teacher"]) for one in resolved] == teachers
    moved = tmp_path / "moved"
    teachers[0].rename(moved)
    again = resolve_run(compose([*choices[:1], f"strategy.teacher={moved}", choices[2], "seed=1"]))
    assert again.fingerprint == resolved[0].fingerprint != resolved[1].fingerprint


def test_only_a_finished_run_will_do(tmp_path: Path, finished):
    with pytest.raises(RunError, match="no finished run"):
        find_finished(tmp_path)
    run = RunDirectory.open(tmp_path, "study", "a", "1" * 8)
    write_result(run.path, failed_result(ValueError("no luck"), fingerprint="1" * 8))
    with pytest.raises(RunError, match=r"failed .*no luck"):
        find_finished(run.path)
    write_result(run.path, finished(fingerprint="1" * 8))
    other = RunDirectory.open(tmp_path, "study", "b", "2" * 8)
    other.attempt()
    assert find_finished(tmp_path) == find_finished(run.path) == run.path
    write_result(other.path, finished(fingerprint="2" * 8))
    with pytest.raises(RunError, match="2 finished runs"):
        find_finished(tmp_path)
