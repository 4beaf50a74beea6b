"""The main job, end to end: what comes out, that it repeats, resumes, fails and is found again as promised."""

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.errors import HeadstartError
from headstart.runs.directory import RunDirectory, find_runs
from headstart.runs.result import read_metrics_csv, read_result

#: A residual network with BatchNorm of half a million parameters, all of which learn, with everything that is random.
SMALL = (
    "backbone=timm",
    "backbone.name=test_resnet",
    "backbone.weights=none",
    "strategy=full",
    "head.dropout=0.3",
    "datamodule.augment=light",
)


#: The fourth epoch of six is the last one, until the process is killed.
HELD = """
import time
from headstart.training import rows
append_row = rows.append_row

def hold(path, row):
    append_row(path, row)
    if row["epoch"] == 3:
        time.sleep(600)

rows.append_row = hold
"""


def weights_of(run: RunDirectory, which: str = "best") -> dict[str, torch.Tensor]:
    return torch.load(run.checkpoints / f"{which}.ckpt", weights_only=True)["state_dict"]


def assert_same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def history(run: RunDirectory) -> list[dict]:
    return [{k: v for k, v in row.items() if "second" not in k} for row in read_metrics_csv(run.metrics_file)]


def test_the_command_ends_in_a_complete_result(call, tiny, tmp_path: Path):
    overrides = [
        *tiny,
        "datamodule.image_size=64",
        "trainer.max_epochs=4",
        "optimizer.lr=0.002",
        "callbacks.plots=true",
    ]
    done = call(*overrides)
    assert done.returncode == 0, done.stderr
    (path,) = find_runs(tmp_path / "outputs")
    assert path.name in done.stdout + done.stderr

    values = json.loads((path / "result.json").read_text())
    assert values["status"] == "done"
    assert path.name.endswith(values["fingerprint"][:8])
    assert values["params"] == {"total": 11_176_512 + 5130, "trainable": 5130}
    assert values["data"]["sizes"]["train"] == 80
    assert values["data"]["classes"] == [str(digit) for digit in range(10)]
    assert values["weights"]["source"].startswith("bundled")
    assert len(values["weights"]["sha256"]) == 64
    assert values["weights"]["missing"] == []
    assert values["config"]["strategy"] == "freeze"
    assert values["config"]["max_epochs"] == 4
    assert "optimizer.lr=0.002" in values["config"]["overrides"]
    assert values["cost"]["images_seen"] == 4 * 80
    assert 0 < values["cost"]["fit_seconds"] <= values["cost"]["total_seconds"]
    assert torch.__version__.startswith(values["versions"]["torch"])
    assert values["metrics"]["val/acc"] > 0.6  # 0.1 by chance
    assert values["metrics"]["test/acc"] > 0.6

    rows = read_metrics_csv(path / "metrics.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert max(row["val/acc"] for row in rows) == pytest.approx(values["metrics"]["val/acc"], abs=1e-6)
    for split in ("val", "test"):
        with np.load(path / f"predictions_{split}.npz") as stored:
            right = (stored["probabilities"].argmax(1) == stored["targets"]).mean()
            assert len(stored["ids"]) == values["data"]["sizes"][split]
        assert right == pytest.approx(values["metrics"][f"{split}/acc"])
    assert list((path / "plots").glob("*.png"))

    stamp = (path / "result.json").stat().st_mtime_ns
    again = call(*overrides)
    assert again.returncode == 0, again.stderr
    assert (path / "result.json").stat().st_mtime_ns == stamp
    assert find_runs(tmp_path / "outputs") == [path]


def test_the_same_choices_give_the_same_bits_and_another_seed_does_not(train):
    first, second = train(*SMALL, output="first"), train(*SMALL, output="second")
    assert first.run.path.name == second.run.path.name
    assert first.result.metrics == second.result.metrics
    assert history(first.run) == history(second.run)
    assert_same_bits(weights_of(first.run, "last"), weights_of(second.run, "last"))
    other = train(*SMALL, "seed=2")
    assert other.result.fingerprint != first.result.fingerprint
    assert other.result.metrics["val/loss"] != first.result.metrics["val/loss"]


def test_killed_and_resumed_equals_uninterrupted(train, start, tiny, tmp_path: Path):
    choices = (*SMALL, "trainer.max_epochs=6")
    whole = train(*choices, output="whole")
    process = start(*tiny, *choices, first=HELD)
    kill_after_epochs(process, tmp_path / "outputs", epochs=2)
    (path,) = find_runs(tmp_path / "outputs")
    partial = RunDirectory(path, whole.result.fingerprint)
    assert partial.state == "partial"
    spent = partial.cost()
    assert spent.images_seen >= 2 * 80

    resumed = train(*choices)
    assert resumed.run.path == path
    assert resumed.result.fingerprint == whole.result.fingerprint
    assert resumed.result.metrics == whole.result.metrics
    assert history(resumed.run) == history(whole.run)
    for which in ("last", "best"):
        assert_same_bits(weights_of(resumed.run, which), weights_of(whole.run, which))
    assert len(resumed.run.attempts()) == 2
    assert 6 * 80 <= resumed.result.cost.images_seen <= 7 * 80  # it went on, it did not start over
    assert resumed.result.cost.fit_seconds > spent.fit_seconds


def kill_after_epochs(process: subprocess.Popen, output: Path, *, epochs: int) -> None:
    deadline = time.monotonic() + 300
    try:
        while time.monotonic() < deadline:
            runs = find_runs(output) if output.exists() else []
            if runs and RunDirectory(runs[0], "").last_checkpoint.exists():
                rows = read_metrics_csv(runs[0] / "metrics.csv")
                if len(rows) >= epochs:
                    return
            if process.poll() is not None:
                pytest.fail(f"ended too early: {process.communicate()[1]}")
            time.sleep(0.01)
        pytest.fail("no epoch within five minutes")
    finally:
        process.kill()
        process.communicate()


def test_a_diverged_run_fails_says_why_and_runs_again(train, tmp_path: Path):
    with pytest.raises(HeadstartError, match=r"optimizer\.lr"):
        train("strategy=full", "optimizer=sgd", "optimizer.lr=1e30")
    (path,) = find_runs(tmp_path / "outputs")
    result = read_result(path)
    assert result.status == "failed"
    assert result.error.startswith("DivergedError: ")
    assert "Traceback" in (path / "log.txt").read_text()
    with pytest.raises(HeadstartError, match=r"optimizer\.lr"):
        train("strategy=full", "optimizer=sgd", "optimizer.lr=1e30")
    with pytest.raises(HeadstartError, match="rerun"):
        train("strategy=full", "optimizer=sgd", "optimizer.lr=1e30", "rerun=none")


def test_an_interruption_that_a_library_turns_into_an_error_is_no_failure(
    train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:  # as torch's archive complains when it is closed half written
            raise RuntimeError("unexpected pos 71645760 vs 71645648")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("strategy=full")
    (path,) = find_runs(tmp_path / "outputs")
    assert not (path / "result.json").exists()
    assert train("strategy=full").result.status == "done"


def test_without_a_test_folder_there_is_no_test_score(train, image_folder):
    root = image_folder(splits={"train": 6, "val": 4})
    trained = train("trainer.max_epochs=1", root=root)
    assert [name for name in trained.result.metrics if name.startswith("test/")] == []
    assert "val/acc" in trained.result.metrics
    assert not trained.run.predictions_file("test").exists()


@pytest.mark.slow
def test_the_jobs_of_a_sweep_equal_single_runs(call, train, tiny, tmp_path: Path):
    done = call(
        "-m", *tiny, "strategy=freeze,full,scratch", "seed=1,2", "backbone.weights=auto", "paths.output_dir=sweep"
    )
    assert done.returncode == 0, done.stderr
    swept = {
        (result.config["strategy"], result.config["seed"]): (path, result)
        for path, result in ((path, read_result(path)) for path in find_runs(tmp_path / "sweep"))
    }
    assert len(swept) == 6
    for strategy, seed in (("scratch", 2), ("full", 2), ("freeze", 1)):
        single = train("backbone.weights=auto", f"strategy={strategy}", f"seed={seed}")
        path, result = swept[strategy, seed]
        assert result.fingerprint == single.result.fingerprint
        assert result.metrics == single.result.metrics
        assert_same_bits(weights_of(RunDirectory(path, ""), "last"), weights_of(single.run, "last"))
