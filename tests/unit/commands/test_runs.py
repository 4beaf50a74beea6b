import json
from pathlib import Path

import pytest

from headstart.commands.runs import list_runs, main
from headstart.errors import RunError
from headstart.runs.directory import RunDirectory
from headstart.runs.result import failed_result, write_result


@pytest.fixture
def outputs(tmp_path: Path, finished) -> Path:
    def run(key: str, fingerprint: str) -> RunDirectory:
        return RunDirectory.open(tmp_path, "study", key, fingerprint)

    done = run("resnet18-freeze", "1" * 16)
    config = finished().config | {"overrides": ["strategy=freeze", "optimizer.lr=0.1", "paths.output_dir=/x"]}
    metrics = {"val/loss": 1.0, "val/acc": 0.5, "val/f1": 0.4, "test/acc": 0.25}
    write_result(done.path, finished(config=config, metrics=metrics))
    failed = run("resnet18-full", "2" * 16)
    failed.attempt().record(total_seconds=2.5)
    write_result(failed.path, failed_result(ValueError("no images"), fingerprint="2" * 16))
    partial = run("resnet18-scratch", "3" * 16)
    partial.attempt().record(fit_seconds=4.0)
    partial.metrics_file.write_text("epoch,val/acc\n0,0.1\n")
    return tmp_path


def test_every_kind_of_run_is_listed(outputs: Path):
    done, failed, partial = list_runs(outputs)
    assert (done.status, done.metric, done.val, done.test) == ("done", "acc", 0.5, 0.25)
    assert done.choices == "resnet18 · linear · freeze · digits · seed 1 · optimizer.lr=0.1"
    assert (failed.status, failed.reason, failed.seconds) == ("failed", "ValueError: no images", 2.5)
    assert (partial.status, partial.metric, partial.seconds) == ("partial", None, 4.0)
    assert "1 epochs recorded" in partial.reason
    assert partial.choices == "resnet18-scratch-33333333"


def test_a_run_that_a_process_holds_is_running(outputs: Path):
    partial = RunDirectory.open(outputs, "study", "resnet18-scratch", "3" * 16)
    with partial.lock():
        assert [run.status for run in list_runs(outputs)] == ["done", "failed", "running"]


def test_the_metric_that_chose_the_checkpoint_is_shown(tmp_path: Path, finished):
    run = RunDirectory.open(tmp_path, "study", "x", "1" * 16)
    write_result(
        run.path, finished(metrics={"val/loss": 1.0, "val/acc": 0.5, "val/f1": 0.25}, details={"monitor": "val/f1"})
    )
    assert [(listed.metric, listed.val) for listed in list_runs(tmp_path)] == [("f1", 0.25)]


def test_the_table_and_the_json_say_the_same(outputs: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main([str(outputs)]) == 0
    table = capsys.readouterr().out
    assert main([str(outputs), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [run["status"] for run in listed] == ["done", "failed", "partial"]
    for run in listed:
        assert run["choices"] in table
    assert "ValueError: no images" in table
    assert "0.2500" in table


def test_no_name_is_obeyed_by_the_terminal(outputs: Path, finished, capsys):
    odd = RunDirectory.open(outputs, "study", "odd", "4" * 16)
    write_result(odd.path, finished(config=finished().config | {"overrides": ["x=\x1b[31mred"]}))
    odd.path.parent.rename(outputs / "\x1b]0;title")
    assert main([str(outputs)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert r"\x1b[31mred" in "".join(said.split())


def test_an_empty_folder_says_what_to_do_and_a_missing_one_is_an_error(tmp_path: Path, capsys):
    assert main([str(tmp_path)]) == 0
    assert "No runs in" in capsys.readouterr().out
    with pytest.raises(RunError, match="absent"):
        main([str(tmp_path / "absent")])


def test_before_the_first_run_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    assert capsys.readouterr().out == "No runs in outputs yet; `headstart train` makes one.\n"
