"""The dashboard's specification: complete for the study, taken back by the library, written without a network."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from headstart.commands.wandb_dashboard import main
from headstart.errors import RunError
from headstart.study.dashboard import SPECIFICATION, look_at, read_specification

needs_library = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("wandb_workspaces") is None,
    reason="needs wandb-workspaces: pip install 'headstart[wandb]'",
)
# The library's own models trip this while they are made.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.invalid")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def study(writer, no_account):
    composed = {"name": "study", "logger": {"wandb": {"project": "leaves", "entity": "lab", "group": None}}}
    for strategy in ("freeze", "full", "scratch"):
        for seed in (1, 2, 3):
            path = writer.run(strategy, seed, composed=composed)
    (path / "plots").mkdir()
    (path / "plots" / "confusion.png").write_bytes(b"")
    return writer.root


def panels_of(sections):
    return {section.name: section.panels for section in sections}


@needs_library
def test_what_is_written_is_read_back_and_shows_the_whole_study(study, capsys):
    assert main([str(study)]) == 0
    assert "written and checked" in capsys.readouterr().out
    workspace, report = read_specification(study / SPECIFICATION)
    assert (workspace.entity, workspace.project) == ("lab", "leaves")
    settings = workspace.runset_settings
    assert [item.name for item in settings.groupby] == ["Group", "strategy"]
    assert "'study'" in str(settings.filters)
    panels = panels_of(workspace.sections)
    assert list(panels) == [
        "Accuracy by strategy",
        "Learning curves",
        "Cost against accuracy",
        "Transfer gain",
        "What moved, by stage",
        "Confusion",
        "Pictures",
    ]
    bars = panels["Accuracy by strategy"]
    assert [[metric.name for metric in bar.metrics] for bar in bars] == [["test/acc"], ["val/acc"]]
    assert all(bar.groupby.name == "strategy" and bar.groupby_aggfunc == "mean" for bar in bars)
    assert [line.y[0].name for line in panels["Learning curves"]] == ["val/acc", "val/loss", "train/loss"]
    assert {line.x.name for line in panels["Learning curves"]} == {"epoch"}
    costs = [(plot.x.name, plot.y.name) for plot in panels["Cost against accuracy"]]
    assert costs == [("cost/total_seconds", "test/acc"), ("params/trainable", "test/acc")]
    [drift] = panels["What moved, by stage"]
    assert [m.name for m in drift.metrics] == [f"drift/{s}" for s in ("stem", "layer1", "layer2", "layer3", "layer4")]
    tables = [panel.query["summaryTable"] for panel in panels["Confusion"]]
    assert "test/confusion_matrix_table" in json.dumps(tables)
    [gain] = panels["Transfer gain"]
    assert "| full |" in gain.markdown
    assert "minus scratch" in gain.markdown
    kinds = [type(block).__name__ for block in report.blocks]
    assert kinds.count("PanelGrid") == len(panels)
    [verdict] = [block for block in report.blocks if type(block).__name__ == "MarkdownBlock"]
    assert verdict.text.startswith("**")


@needs_library
def test_a_study_without_test_images_or_baseline_asks_for_nothing_that_is_not_there(writer, no_account):
    for strategy in ("freeze", "full"):
        for seed in (1, 2):
            writer.run(strategy, seed, test=False)
    assert main([str(writer.root), "--project", "other", "--entity", "me", "--out", str(writer.root / "x.json")]) == 0
    workspace, _ = read_specification(writer.root / "x.json")
    assert (workspace.entity, workspace.project) == ("me", "other")
    text = (writer.root / "x.json").read_text()
    assert "test/" not in text
    assert "Transfer gain" not in panels_of(workspace.sections)


@needs_library
def test_panels_are_held_against_what_the_runs_have_logged(study, tmp_path, capsys):
    import wandb

    run = wandb.init(project="leaves", mode="offline", dir=study / "one", settings=wandb.Settings(silent=True))
    run.log({"epoch": 0, "val/acc": 0.5, "val/loss": 1.0, "train/loss": 1.0})
    run.summary.update({"test/acc": 0.5, "cost/total_seconds": 3.0, "params/trainable": 10})
    run.finish()
    assert main([str(study)]) == 0
    out = capsys.readouterr().out
    assert "not in the 1 offline runs here, so these panels stay empty: drift/layer1" in out
    assert "test/acc" not in out
    assert f"wandb sync {study}/*/wandb/offline-run-*" in out


@needs_library
def test_saving_without_an_account_says_what_to_do_and_leaves_the_file(study, capsys):
    assert main([str(study), "--save"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: saving a dashboard needs an account: run `wandb login`, or set WANDB_API_KEY")
    assert error.count("\n") == 1
    assert (study / SPECIFICATION).exists()


@needs_library
def test_a_damaged_specification_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"workspace": {"entity": 1}, "report": {}}')
    with pytest.raises(RunError, match="is no specification of a dashboard"):
        read_specification(tmp_path / "x.json")
    with pytest.raises(RunError, match="is no specification of a dashboard"):
        read_specification(tmp_path / "nothing.json")


def test_without_the_library_one_line_says_how_to_get_it(study, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([str(study)]) == 1
    message = capsys.readouterr().err
    assert message == "error: a dashboard needs wandb-workspaces: pip install 'headstart[wandb]'\n"


def test_a_folder_without_a_finished_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no finished run" in capsys.readouterr().err


def test_the_group_of_the_runs_is_the_one_they_were_logged_to(writer):
    for seed in (1, 2):
        path = writer.run("freeze", seed)
        (path / "config.yaml").write_text(yaml.safe_dump({"name": "study", "logger": {"wandb": {"group": "mine"}}}))
    assert look_at(writer.root).study == "mine"
