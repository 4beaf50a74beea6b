"""A sweep logged to Weights & Biases without a network, read back, and the dashboard that is made for it."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_testing import Command, told
from wandb_offline import find_offline_runs, read_offline_run

from headstart.commands.wandb_dashboard import main
from headstart.runs.result import read_result
from headstart.study.dashboard import look_at, unknown_keys


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wandb-workspaces trips them while it is imported
def test_one_record_for_each_job_with_all_that_the_dashboard_shows(tmp_path: Path, repository: Path, capsys):
    command = Command(tmp_path, repository)
    code, out = command(
        "-m",
        "strategy=freeze,scratch",
        "seed=1,2",
        "trainer.max_epochs=2",
        "logger=wandb",
        "hydra.sweeper.report=false",
    )
    assert code == 0, out
    study = command.study()
    runs = {run.run_id: run for run in map(read_offline_run, find_offline_runs(study))}
    jobs = told(study).values()
    assert len(runs) == len(jobs) == 4
    stored = {result.fingerprint: result for result in (read_result(study / job["run"]) for job in jobs)}
    for run in runs.values():
        result = stored[run.config["fingerprint"]]
        assert (run.group, run.job_type, run.exit_code) == ("study", result.config["strategy"], 0)
        assert run.config["seed"] == result.config["seed"]
        for name, value in result.metrics.items():
            assert value is None or run.summary[name] == pytest.approx(value)
        assert run.summary["cost/total_seconds"] == pytest.approx(result.cost.total_seconds)
        assert run.summary["params/trainable"] == result.params["trainable"]
        # Lightning logs the final scoring of the chosen checkpoint as one more epoch.
        assert [row["epoch"] for row in run.history if "val/acc" in row][:2] == [0, 1]
    shown = look_at(study)
    assert unknown_keys(shown, study) == ([], 4)
    logged = {key for run in runs.values() for values in (run.summary, *run.history) for key in values}
    assert logged >= {*shown.scores, *shown.curves, *(f"drift/{stage}" for stage in shown.stages)}
    without = replace(shown, stages=("nowhere",), scores=("test/f9",))
    assert unknown_keys(without, study) == (["drift/nowhere", "test/f9"], 4)
    if importlib.util.find_spec("wandb_workspaces") is not None:
        assert main([str(study)]) == 0
        assert "logged by no run" not in capsys.readouterr().out
        assert json.loads((study / "wandb_dashboard.json").read_text())["study"] == "study"
