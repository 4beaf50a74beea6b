"""Job by job: what was trained together is what trains alone, to the last bit of weights and predictions."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.config import ResolvedRun, compose, resolve_run
from headstart.execution.train import train
from headstart.frozen.eligible import obstacle, shared_part
from headstart.frozen.group import train_group
from headstart.runs.directory import RunDirectory

TINY = (
    "backbone.weights=bundled",
    "datamodule.image_size=32",
    "datamodule.shots=4",
    "datamodule.val_fraction=0.05",
    "datamodule.test_fraction=0.05",
    "datamodule.batch_size=16",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "callbacks.progress=none",
    "callbacks.plots=false",
)

FEW = ("optimizer.lr=0.01 seed=2", "optimizer=sgd scheduler=step scheduler.step_epochs=1 datamodule.shots=3")

MANY = (
    "",
    *FEW,
    "optimizer.lr=0.1 optimizer.weight_decay=0.1",
    "scheduler=plateau scheduler.patience=0 trainer.max_epochs=5",
    "scheduler=none trainer.max_epochs=4",
    "optimizer=sgd optimizer.nesterov=true",
    "optimizer=rmsprop optimizer.momentum=0.5",
    "optimizer=adam optimizer.betas=[0.8,0.9] optimizer.weight_decay=0.01",
    "datamodule.fraction=0.5 datamodule.shots=null",
    "head=mlp head.hidden=[33] head.dropout=0.3 seed=3",
    "head=mlp head.hidden=[33] head.dropout=0.3 seed=4",
    "head=small_cnn",
    "head.dropout=0.5",
    "callbacks.early_stopping.enabled=true callbacks.early_stopping.patience=1 trainer.max_epochs=9 optimizer.lr=0.3",
    "loss.label_smoothing=0.1",
    "loss.class_weights=balanced",
    "datamodule.batch_size=8 datamodule.eval_batch_size=50",
    "datamodule.steps_per_epoch=7",
    "datamodule.drop_last=true",
    "task=binary datamodule.classes=[3,8]",
    "datamodule.augment=light cache.views=2",
    "trainer.gradient_clip_val=0.1",
    "trainer.gradient_clip_val=0.01 trainer.gradient_clip_algorithm=value",
)


@pytest.fixture
def choices(tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides of a job, in a folder of its own kind."""
    return lambda text, where, *more: [*TINY, *more, *text.split(), f"paths.output_dir={tmp_path / where}"]


def resolve(overrides: list[str]) -> ResolvedRun:
    return resolve_run(compose(overrides))


def directory(run: ResolvedRun) -> RunDirectory:
    return RunDirectory.open(run.output_dir, run.study, run.key, run.fingerprint)


def train_together(runs: list[ResolvedRun]) -> dict[str, str]:
    groups: dict[str, list[ResolvedRun]] = {}
    refused: dict[str, str] = {}
    for run in runs:
        assert obstacle(run) is None
        groups.setdefault(shared_part(run), []).append(run)
    for group in groups.values():
        train_group(group, lambda run, reason: refused.update({run.fingerprint: reason}))
    return refused


def assert_same_run(together: RunDirectory, alone: RunDirectory) -> None:
    """Every file of a run, as far as it is no time, place or memory."""
    assert {path.name for path in together.path.iterdir()} == {path.name for path in alone.path.iterdir()}
    for split in ("val", "test"):
        first, second = np.load(together.predictions_file(split)), np.load(alone.predictions_file(split))
        assert set(first) == set(second)
        for name in second:
            assert np.array_equal(first[name], second[name]), f"{split} {name}"
    for which in ("best", "last"):
        first, second = (torch.load(run.checkpoints / f"{which}.ckpt", weights_only=True) for run in (together, alone))
        differences = list(_differences(_elsewhere(first, together), _elsewhere(second, alone), which))
        assert differences == []
    audits = [json.loads(run.audit_file.read_text()) for run in (together, alone)]
    assert audits[0] == audits[1]
    first, second = together.result(), alone.result()
    for section in ("status", "fingerprint", "metrics", "weights", "data", "params", "versions"):
        assert getattr(first, section) == getattr(second, section), section
    details = dict(first.details)
    assert details.pop("fused")["runs"] >= 1
    assert details == second.details
    assert first.cost.images_seen == second.cost.images_seen
    _assert_same_rows(together, alone)


def _assert_same_rows(together: RunDirectory, alone: RunDirectory) -> None:
    first, second = rows_of(together), rows_of(alone)
    assert [list(row) for row in first] == [list(row) for row in second]
    for ours, theirs in zip(first, second, strict=True):
        for name, value in theirs.items():
            if name == "phase":
                assert ours[name] == value
            elif name != "seconds":
                assert float(ours[name]) == pytest.approx(float(value), rel=2e-6, abs=2e-6), name
        assert ours["val/acc"] == theirs["val/acc"]


def rows_of(run: RunDirectory) -> list[dict[str, str]]:
    with run.metrics_file.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _elsewhere(value: Any, run: RunDirectory) -> Any:
    """Without the folder that the run is in."""
    if isinstance(value, dict):
        return {_elsewhere(key, run): _elsewhere(inner, run) for key, inner in value.items()}
    return value.replace(str(run.path), "RUN") if isinstance(value, str) else value


def _differences(first: Any, second: Any, place: str) -> Any:
    if isinstance(first, dict) and isinstance(second, dict):
        if set(first) != set(second):
            yield f"{place}: {set(first) ^ set(second)}"
        for key in set(first) & set(second):
            yield from _differences(first[key], second[key], f"{place}/{key}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (ours, theirs) in enumerate(zip(first, second, strict=True)):
            yield from _differences(ours, theirs, f"{place}/{number}")
    elif isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if first.dtype != second.dtype or not torch.equal(first, second):
            yield f"{place}: {first} is not {second}"
    elif isinstance(first, float) and isinstance(second, float):
        if first != pytest.approx(second, rel=1e-12):
            yield f"{place}: {first} is not {second}"
    elif first != second:
        yield f"{place}: {first} is not {second}"


def check_each(jobs: tuple[str, ...], choices: Callable, precision: str) -> None:
    more = (f"trainer.precision={precision}",)
    together = [resolve(choices(job, "together", *more)) for job in jobs]
    assert train_together(together) == {}
    for job, run in zip(jobs, together, strict=True):
        overrides = choices(job, "alone", *more)
        train(resolve(overrides))
        try:
            assert_same_run(directory(run), directory(resolve(overrides)))
        except AssertionError as error:
            raise AssertionError(f"{job or 'the default job'}: {error}") from error


def test_a_few_jobs_are_as_they_would_be_alone(choices: Callable):
    check_each(FEW, choices, "bf16-mixed")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_kind_of_job_is_as_it_would_be_alone(choices: Callable, precision: str):
    check_each(MANY, choices, precision)


def test_a_job_that_diverges_fails_alone(choices: Callable):
    good, bad = (resolve(choices(text, "out")) for text in ("optimizer=sgd", "optimizer=sgd optimizer.lr=1e38 seed=2"))
    assert train_together([bad, good]) == {}
    assert directory(good).result().status == "done"
    failed = directory(bad).result()
    assert failed.status == "failed"
    assert "DivergedError: the training loss became" in (failed.error or "")
    assert directory(bad).action == "train", "rerun=failed tries it again"
    assert "DivergedError" in directory(bad).log_file.read_text()
    assert len(rows_of(directory(bad))) == 1
    train(resolve(choices("optimizer=sgd", "alone")))
    assert_same_run(directory(good), directory(resolve(choices("optimizer=sgd", "alone"))))


def test_a_run_that_another_process_holds_is_handed_back(choices: Callable):
    runs = [resolve(choices(text, "out", "trainer.max_epochs=1")) for text in ("", "seed=2")]
    with directory(runs[0]).lock():
        refused = train_together(runs)
    assert refused == {runs[0].fingerprint: "another process trains it now"}
    assert directory(runs[0]).state == "new"
    assert directory(runs[1]).state == "done"


def test_heads_that_cannot_be_stacked_are_handed_back(
    choices: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "strange.py").write_text(
        "import torch\nfrom headstart.heads import Linear\n"
        "class Looks(Linear):\n    def forward(self, x):\n"
        "        return super().forward(x) if x.float().mean() > -1e9 else x\n"
        "class Counts(Linear):\n    def __init__(self, *args, **kwargs):\n        super().__init__(*args, **kwargs)\n"
        "        self.register_buffer('seen', torch.zeros(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    jobs = ("head._target_=strange.Looks", "head._target_=strange.Counts", "")
    runs = [resolve(choices(text, "out", "trainer.max_epochs=1")) for text in jobs]
    refused = train_together(runs)
    assert "Looks cannot be stacked" in refused[runs[0].fingerprint]
    assert "buffers" in refused[runs[1].fingerprint]
    assert len(refused) == 2
    assert [directory(run).state for run in runs] == ["new", "new", "done"]


@pytest.mark.slow
def test_a_run_trained_together_can_be_extended(choices: Callable):
    job = "optimizer=adam scheduler=none"
    assert train_together([resolve(choices(job, "together"))]) == {}
    train(resolve(choices(job, "alone")))
    results = [
        train(resolve_run(compose(choices(f"{job} trainer.max_epochs=5 extend=true", where)))).result
        for where in ("together", "alone")
    ]
    assert results[0].metrics == results[1].metrics
    assert results[0].details["epochs"] == 5


def test_costs_are_shares_and_say_so(choices: Callable):
    jobs = ("seed=1", "seed=2", "seed=3", "head=mlp head.hidden=[8]")
    runs = [resolve(choices(text, "out", "trainer.max_epochs=2")) for text in jobs]
    assert train_together(runs) == {}
    results = [directory(run).result() for run in runs]
    for result, stack in zip(results, (3, 3, 3, 1), strict=True):
        fused = result.details["fused"]
        assert (fused["runs"], fused["stack"]) == (4, stack)
        assert 0 < result.cost.fit_seconds <= fused["fit_seconds"] / stack + 2e-3
        assert result.cost.total_seconds > result.cost.fit_seconds + result.cost.extract_seconds
    # All used the same entries; the first to use them does not alone bear what they cost.
    assert len({result.cost.extract_seconds for result in results}) == 1
    assert results[0].cost.extract_seconds > 0
    assert len({result.cache["key"] for result in results}) == 1
