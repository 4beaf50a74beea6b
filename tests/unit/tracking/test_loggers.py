"""Loggers write one record a run, close it in any case, and never wait for a server."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from wandb_offline import OfflineRun, find_offline_runs, read_offline_run

from headstart.errors import ConfigError
from headstart.runs.result import Cost, Result
from headstart.system.network import reachable
from headstart.tasks.predictions import Predictions
from headstart.tracking import wandb_run
from headstart.tracking.loggers import build_loggers, finish_loggers, flat_choices, log_outcome, measurements, stable_id
from headstart.tracking.wandb_run import choose_mode

URL = "https://wandb.invalid"


@dataclass
class Choices:
    """Stands in for a resolved run."""

    output_dir: str
    study: str = "runs"
    key: str = "digits-resnet18"
    fingerprint: str = "f" * 64
    config: dict[str, Any] = field(
        default_factory=lambda: {
            "seed": 1,
            "backbone": {"name": "resnet18"},
            "optimizer": {"lr": 0.1},
            "trainer": {"devices": [0, 1], "profiler": None},
            "logger": {"wandb": {}},
            "paths": {"output_dir": "x"},
        }
    )
    choices: dict[str, str] = field(default_factory=lambda: {"strategy": "freeze", "backbone": "timm"})


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    return Choices(str(tmp_path))


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key, no server, no earlier refusal; wandb's staging folders in a temporary one."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", URL)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    wandb_run._refused.clear()
    yield
    wandb.finish()


def predictions(number: int = 12, classes: int = 3) -> Predictions:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(classes), number).astype(np.float32)
    targets = np.arange(number) % classes
    return Predictions(np.arange(number), targets, np.log(probabilities), probabilities, {})


def offline(folder: Path) -> list[OfflineRun]:
    """The runs below ``folder``. wandb's service writes the end of a file shortly after ``finish`` has returned."""
    deadline = time.monotonic() + 60
    while True:
        runs = [read_offline_run(path) for path in find_offline_runs(folder)]
        if all(run.exit_code is not None for run in runs) or time.monotonic() > deadline:
            return runs
        time.sleep(0.02)


def test_jobs_in_one_process_are_offline_runs_of_their_own(tmp_path: Path) -> None:
    for number, exit_code in enumerate((0, 1)):
        choices = Choices(str(tmp_path), key=f"key{number}", fingerprint=str(number) * 64)
        loggers = build_loggers({"csv": {}, "wandb": {"tags": ["t"]}}, run_dir=tmp_path / choices.key, resolved=choices)
        for step in range(3):
            loggers[0].log_metrics({"train/loss": step + 10.0 * number}, step=step)
        log_outcome(loggers, metrics={"val/acc": 0.5 + number / 10, "val/auroc": None})
        finish_loggers(loggers, exit_code=exit_code)
        assert wandb.run is None

    first, second = (offline(tmp_path / f"key{number}") for number in range(2))
    assert len(first) == len(second) == 1
    assert [run.exit_code for run in first + second] == [0, 1]
    assert first[0].run_id != second[0].run_id
    for number, run in enumerate(first + second):
        assert (run.project, run.group, run.job_type, run.name) == ("headstart", "runs", "freeze", f"key{number}")
        assert run.config["optimizer.lr"] == 0.1
        assert run.config["backbone"] == "timm"
        assert run.config["backbone.name"] == "resnet18"
        assert [row["train/loss"] for row in run.history] == [10.0 * number, 1 + 10.0 * number, 2 + 10.0 * number]
        assert [row["trainer/global_step"] for row in run.history] == [0, 1, 2]
        assert run.summary["val/acc"] == 0.5 + number / 10
        assert "val/auroc" not in run.summary


def test_options_of_wandb_reach_the_run(tmp_path: Path, choices: Choices) -> None:
    options = {"project": "mine", "entity": None, "group": "other", "tags": [], "mode": "offline", "log_model": True}
    loggers = build_loggers({"wandb": options}, run_dir=tmp_path, resolved=choices)
    finish_loggers(loggers)
    assert [(run.project, run.group) for run in offline(tmp_path)] == [("mine", "other")]


def test_the_confusion_matrix_table_and_pictures_are_in_the_offline_run(tmp_path: Path, choices: Choices) -> None:
    picture = tmp_path / "curves.png"
    Image.new("RGB", (8, 8)).save(picture)
    found = predictions()
    ids = [f"image{i}" for i in range(12)]
    loggers = build_loggers({"wandb": {}}, run_dir=tmp_path, resolved=choices)
    log_outcome(
        loggers,
        metrics={"val/acc": 0.5},
        predictions={"val": found},
        ids={"val": ids},
        classes=["a", "b", "c"],
        plots=[picture],
    )
    finish_loggers(loggers)
    (run,) = offline(tmp_path)
    assert run.history[-1]["plots/curves/_type"] == "image-file"
    tables = {path.name.partition("_")[0]: json.loads(path.read_text()) for path in tmp_path.rglob("*.table.json")}
    assert set(tables) == {"predictions", "confusion"}
    rows = [dict(zip(tables["predictions"]["columns"], row, strict=True)) for row in tables["predictions"]["data"]]
    predicted = found.probabilities.argmax(1)
    assert {row["image"]: row["predicted"] for row in rows} == {
        name: "abc"[k] for name, k in zip(ids, predicted, strict=True)
    }
    correct = [row["correct"] for row in rows]
    assert correct == sorted(correct)
    assert sum(correct) == (predicted == found.targets).sum()
    wrong = [row["probability"] for row in rows if not row["correct"]]
    assert wrong == sorted(wrong, reverse=True)
    counts = {(true, guess): count for true, guess, count in tables["confusion"]["data"]}
    assert counts["a", "b"] == sum((found.targets == 0) & (predicted == 1))
    assert sum(counts.values()) == 12


def test_long_records_and_torn_files_are_read(tmp_path: Path, choices: Choices) -> None:
    choices.config["text"] = "".join(f"{i:05d}" for i in range(20_000))  # three blocks of the file
    loggers = build_loggers({"wandb": {}}, run_dir=tmp_path, resolved=choices)
    for step in range(2):
        loggers[0].log_metrics({"train/loss": 1.0}, step=step)
    finish_loggers(loggers)
    (run,) = offline(tmp_path)
    assert run.config["text"] == choices.config["text"]
    assert len(run.history) == 2
    (path,) = find_offline_runs(tmp_path)
    path.write_bytes(path.read_bytes()[:100_500])
    torn = read_offline_run(path)
    assert torn.exit_code is None
    assert len(torn.history) <= 2


def test_a_run_left_open_does_not_take_the_next_jobs_metrics(tmp_path: Path) -> None:
    left = Choices(str(tmp_path), key="left", fingerprint="1" * 64)
    build_loggers({"wandb": {}}, run_dir=tmp_path / "left", resolved=left)
    loggers = build_loggers({"wandb": {}}, run_dir=tmp_path / "next", resolved=Choices(str(tmp_path)))
    loggers[0].log_metrics({"train/loss": 1.0}, step=0)
    finish_loggers(loggers)
    assert offline(tmp_path / "left")[0].history == []
    assert len(offline(tmp_path / "next")[0].history) == 1


def test_the_same_choices_have_the_same_record(tmp_path: Path) -> None:
    same = stable_id(Choices(str(tmp_path)))
    assert same == stable_id(Choices("elsewhere", key="another"))
    assert same != stable_id(Choices(str(tmp_path), study="other"))
    assert same != stable_id(Choices(str(tmp_path), fingerprint="0" * 64))


def test_choices_are_flat_and_leave_out_places(choices: Choices) -> None:
    flat = flat_choices(choices)
    assert flat["optimizer.lr"] == 0.1
    assert flat["strategy"] == "freeze"
    assert not [key for key in flat if key.startswith(("logger", "paths"))]


def test_mode_without_a_key_is_offline() -> None:
    mode, reason = choose_mode("auto", base_url=URL)
    assert mode == "offline"
    assert "key" in reason


def test_mode_with_a_key_but_no_server_is_offline_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, waited = threading.Event(), []

    def silent(*_: Any, **__: Any) -> None:
        waited.append(given_up.wait(60))
        raise OSError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    monkeypatch.setattr(wandb_run, "reachable", lambda url: reachable(url, timeout_s=0.2))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    mode, reason = choose_mode("auto", base_url=URL)
    assert (mode, reason) == ("offline", "wandb.invalid cannot be reached")
    assert not waited
    given_up.set()


@pytest.mark.parametrize("source", ["environment", "netrc"])
def test_mode_with_a_key_and_a_server_is_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(wandb_run, "reachable", lambda url: True)
    if source == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    else:
        (tmp_path / "netrc").write_text("machine wandb.invalid login user password " + "x" * 40)
    assert choose_mode("auto", base_url=URL)[0] == "online"
    assert choose_mode("offline", base_url=URL)[0] == "offline"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert choose_mode("auto", base_url=URL)[0] == "offline"


def test_online_where_it_is_impossible_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"logger\.wandb\.mode=online, but there is no key"):
        choose_mode("online", base_url=URL)
    with pytest.raises(ConfigError, match=r"logger\.wandb\.mode=sometimes is unknown"):
        choose_mode("sometimes", base_url=URL)


def test_disabled_makes_no_logger(tmp_path: Path, choices: Choices) -> None:
    assert build_loggers({"wandb": {"mode": "disabled"}}, run_dir=tmp_path, resolved=choices) == []
    assert find_offline_runs(tmp_path) == []


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and never answers, as some firewalls do."""
    server = socket.create_server(("127.0.0.1", 0))
    open_connections = []

    def accept() -> None:
        while True:
            try:
                open_connections.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    for connection in open_connections:
        connection.close()


def test_a_server_that_never_answers_is_waited_for_once(
    tmp_path: Path, silent_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.teardown()  # settings are read once a process
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    asked = []
    monkeypatch.setattr(wandb_run, "reachable", lambda url: asked.append(url) or reachable(url, timeout_s=0.5))
    for number in range(2):
        run_dir = tmp_path / str(number)
        choices = Choices(str(tmp_path), fingerprint=str(number) * 64)
        loggers = build_loggers({"wandb": {}}, run_dir=run_dir, resolved=choices)
        loggers[0].log_metrics({"train/loss": 1.0}, step=0)
        finish_loggers(loggers)
        (run,) = offline(run_dir)
        assert len(run.history) == 1
    wandb.teardown()
    assert asked == [silent_server]
    assert capsys.readouterr().out.count("wandb: offline because") == 2


def test_tensorboard_holds_metrics_outcome_and_pictures(tmp_path: Path, choices: Choices) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    picture = tmp_path / "curves.png"
    Image.new("RGB", (8, 8)).save(picture)
    loggers = build_loggers({"tensorboard": {}}, run_dir=tmp_path, resolved=choices)
    loggers[0].log_metrics({"val/acc": 0.25}, step=7)
    log_outcome(loggers, metrics={"test/acc": 0.5}, plots=[picture])
    finish_loggers(loggers)
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/acc")] == [(7, 0.25)]
    assert events.Scalars("outcome/test/acc")[0].value == 0.5
    assert events.Tags()["images"] == ["plots/curves"]


def test_several_loggers_at_once_and_csv_is_none(tmp_path: Path, choices: Choices) -> None:
    loggers = build_loggers({"csv": {}, "tensorboard": None, "wandb": None}, run_dir=tmp_path, resolved=choices)
    assert len(loggers) == 2
    finish_loggers(loggers)
    assert build_loggers({"csv": {}}, run_dir=tmp_path, resolved=choices) == []


def test_an_unknown_logger_and_a_missing_package_are_said(
    tmp_path: Path, choices: Choices, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="logger=neptune is unknown; choose from csv, tensorboard, wandb, mlflow"):
        build_loggers({"neptune": {}}, run_dir=tmp_path, resolved=choices)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"logger=mlflow needs mlflow: pip install 'headstart\[mlflow\]'"):
        build_loggers({"mlflow": {}}, run_dir=tmp_path, resolved=choices)


def test_loggers_started_before_a_failing_one_are_closed(
    tmp_path: Path, choices: Choices, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ConfigError("no such store")

    monkeypatch.setattr("headstart.tracking.loggers._mlflow", fail)
    with pytest.raises(ConfigError, match="no such store"):
        build_loggers({"mlflow": {}, "wandb": {}}, run_dir=tmp_path, resolved=choices)
    assert wandb.run is None
    assert [run.exit_code for run in offline(tmp_path)] == [1]


def test_a_logger_that_fails_costs_neither_the_result_nor_the_other_loggers(
    tmp_path: Path, choices: Choices, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loggers = build_loggers({"tensorboard": {}, "wandb": {}}, run_dir=tmp_path, resolved=choices)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(loggers[0], "finalize", fail)
    log_outcome(loggers, metrics={"val/acc": 0.5}, plots=[tmp_path / "missing.png"])
    finish_loggers(loggers)
    out = capsys.readouterr().out
    assert "did not take the outcome" in out
    assert "could not be closed: disk full" in out
    assert offline(tmp_path)[0].exit_code == 0


def test_mlflow_keeps_one_local_record_a_run(tmp_path: Path, choices: Choices) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    for attempt in range(2):
        loggers = build_loggers({"mlflow": {}}, run_dir=tmp_path, resolved=choices)
        loggers[0].log_metrics({"train/loss": 1.0 + attempt}, step=attempt)
        with pytest.warns(RuntimeWarning, match="MLFlow only allows"):
            log_outcome(loggers, metrics={"val/rmse_size (cm)": 2.0, "val/acc": 0.5})
        finish_loggers(loggers, exit_code=1 - attempt)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("runs").experiment_id])
    assert (run.info.run_name, run.info.status) == ("digits-resnet18", "FINISHED")
    assert run.data.params["optimizer.lr"] == "0.1"
    assert run.data.metrics["outcome/val/acc"] == 0.5
    assert run.data.metrics["outcome/val/rmse_size cm"] == 2.0


def test_what_a_run_cost_and_moved_is_told_by_flat_names(tmp_path: Path):
    stages = [{"name": "stem", "drift_relative": 0.0}, {"name": "layer1", "drift_relative": 0.25}, {"name": "head"}]
    (tmp_path / "audit.json").write_text(json.dumps({"stages": stages}))
    cost = Cost(fit_seconds=2.0, total_seconds=3.0, device="cpu")
    result = Result("done", "f", params={"total": 10, "trainable": 4}, cost=cost)
    found = measurements(result, tmp_path / "audit.json")
    assert found["cost/total_seconds"] == 3.0
    assert found["params/trainable"] == 4
    assert found["drift/layer1"] == 0.25
    assert found["drift/head"] is None
    assert "cost/device" not in found
    assert not any(name.startswith("drift") for name in measurements(result, tmp_path / "none.json"))
