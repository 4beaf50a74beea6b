"""``headstart advise`` as a whole, on real images."""

import json
from pathlib import Path

import pytest

import headstart
from headstart.commands.cli import main
from headstart.runs.reader import read_runs


@pytest.mark.slow
def test_advice_on_digits_is_one_that_its_runs_bear_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    choices = ["datamodule=digits", "datamodule.shots=20", "trainer=cpu", f"paths.output_dir={tmp_path}"]
    command = ["advise", *choices, "backbones=resnet18,resnet18:none", "budget=100s"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "Use resnet18: " in said
    folder = tmp_path / "advise-digits"
    trials = tmp_path / "advise-digits-tuning"
    runs = {run.path.name: run for study in (folder, trials) for run in read_runs(study)}
    assert runs
    assert all(run.status in ("done", "partial") for run in runs.values())
    journal = json.loads((folder / "advice.json").read_text(encoding="utf-8"))
    scored = [one for one in journal["tried"].values() if one["path"]]
    assert all(runs[Path(one["path"]).name].metrics["val/acc"] == one["score"] for one in scored)
    best = max(scored, key=lambda one: (one["estimate"] - one["seed_error"], -one["seconds"]))
    page = (folder / "advice.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "What was trained" in page
    # The command that it recommends is that very run, so it is there already.
    line = next(line for line in said.splitlines() if line.startswith("headstart train"))
    run = headstart.train(*[part.strip("'") for part in line.split()[2:]])
    assert run.path == Path(best["path"])
    # Again, everything is there.
    before = journal["spent_s"]
    assert main(command) == 0
    again = json.loads((folder / "advice.json").read_text(encoding="utf-8"))
    assert again["tried"].keys() >= journal["tried"].keys()
    assert again["spent_s"] > before
    assert "going on from" in capsys.readouterr().out


@pytest.mark.slow
def test_a_folder_without_a_test_split_gets_one_and_damage_is_told(
    tmp_path: Path, image_folder, capsys: pytest.CaptureFixture[str]
):
    root = image_folder(splits={"": 30})
    (root / "ant" / "broken.png").write_bytes(b"no image")
    given = ["budget=60s", "backbones=resnet18", "trainer=cpu", f"paths.output_dir={tmp_path / 'out'}"]
    assert main(["advise", str(root), *given]) == 0
    said = capsys.readouterr().out
    assert "val and test carved from the training images" in said
    assert "Unreadable files, which are left out: 1" in said
    assert "datamodule.test_fraction=0.2" in said
    assert "of new images to be right" in said


def test_a_budget_that_is_no_time_ends_at_once(capsys: pytest.CaptureFixture[str]):
    assert main(["advise", "datamodule=digits", "budget=soon"]) == 1
    assert "budget=soon is no time" in capsys.readouterr().err
