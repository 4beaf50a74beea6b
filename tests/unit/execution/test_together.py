"""Job by job: what was trained together is what trains alone, within a stated tolerance."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.config import ResolvedRun, compose, resolve_run
from headstart.execution.load import load
from headstart.execution.together import train_together as train_group
from headstart.execution.train import train
from headstart.frozen.eligible import obstacle, shared_part
from headstart.runs.directory import RunDirectory
from headstart.training.assemble import build_data

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

FEW = (
    "optimizer.lr=0.01 seed=2",
    "optimizer=sgd scheduler=step scheduler.step_epochs=1 datamodule.shots=3",
    "datamodule.sampler=balanced datamodule.fraction=0.03 datamodule.shots=null",
)

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
    "datamodule.sampler=balanced datamodule.fraction=0.03 datamodule.shots=null datamodule.steps_per_epoch=5",
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
    """What a run leaves behind, its numbers within an image of the accuracy and a thousandth of the loss."""
    files = {path.name for path in alone.path.iterdir()}
    assert {path.name for path in together.path.iterdir()} == files
    kept = {path.name for path in together.checkpoints.iterdir()}
    assert kept == {path.name for path in alone.checkpoints.iterdir()} - {"last.ckpt"}
    first, second = together.result(), alone.result()
    for section in ("status", "fingerprint", "weights", "data", "params", "versions"):
        assert getattr(first, section) == getattr(second, section), section
    _assert_close(first.metrics, second.metrics, second.data["sizes"])
    details = dict(first.details)
    assert details.pop("fused")["runs"] >= 1
    assert set(details) == set(second.details)
    for name in ("epochs", "phases", "input_spec", "precision", "monitor", "task_record"):
        assert details[name] == second.details[name], name
    for split in ("val", "test"):
        ours, theirs = np.load(together.predictions_file(split)), np.load(alone.predictions_file(split))
        assert set(ours) == set(theirs)
        for name in ("index", "ids", "targets", "classes"):
            assert np.array_equal(ours[name], theirs[name]), f"{split} {name}"
        assert np.abs(ours["probabilities"] - theirs["probabilities"]).max() < 2e-2, split
    audits = [json.loads(run.audit_file.read_text()) for run in (together, alone)]
    assert audits[0]["ok"]
    assert audits[1]["ok"]
    assert audits[0]["phases"] == audits[1]["phases"]
    assert first.cost.images_seen == second.cost.images_seen
    _assert_same_rows(together, alone)


def _assert_close(ours: dict[str, Any], theirs: dict[str, Any], sizes: dict[str, int]) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        images = sizes[name.partition("/")[0]]
        allowed = 1e-3 if name.endswith("loss") else 1.01 / images if name.endswith(("acc", "top5")) else 3 / images
        assert abs(float(ours[name]) - float(value)) <= allowed, name


def _assert_same_rows(together: RunDirectory, alone: RunDirectory) -> None:
    first, second = rows_of(together), rows_of(alone)
    assert [list(row) for row in first] == [list(row) for row in second]
    for ours, theirs in zip(first, second, strict=True):
        for name, value in theirs.items():
            if name in ("phase", "epoch", "step"):
                assert ours[name] == value
            elif name.startswith("lr/"):
                assert float(ours[name]) == pytest.approx(float(value))
            elif name.endswith("loss"):
                assert abs(float(ours[name]) - float(value)) <= 1e-3, name


def rows_of(run: RunDirectory) -> list[dict[str, str]]:
    with run.metrics_file.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


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


def test_as_many_images_validate_as_would_alone(choices: Callable):
    jobs = ("datamodule.batch_size=8 datamodule.val_steps=1", "datamodule.batch_size=16 datamodule.val_steps=1")
    together = [resolve(choices(job, "together", "trainer.max_epochs=1")) for job in jobs]
    assert train_together(together) == {}
    assert [directory(run).result().data["sizes"]["val"] for run in together] == [8, 16]


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


def test_a_run_trained_together_is_loaded_as_any(choices: Callable):
    run = resolve(choices("optimizer=adam", "together"))
    assert train_together([run]) == {}
    model = load(directory(run).path)
    stored = np.load(directory(run).predictions_file("test"))
    data = build_data(run.settings.datamodule, seed=run.settings.seed)
    images = [Image.fromarray(image) for image in data.records("test").images[:8]]
    found = np.array([prediction.probabilities for prediction in model.predict(images)])
    np.testing.assert_allclose(found, stored["probabilities"][:8], atol=2e-2)


def test_extending_a_run_that_was_trained_together_trains_anew(choices: Callable, capsys: pytest.CaptureFixture[str]):
    job = "optimizer=adam scheduler=none"
    assert train_together([resolve(choices(job, "together"))]) == {}
    longer = train(resolve(choices(f"{job} trainer.max_epochs=5 extend=true", "together"))).result
    assert "was trained together with others and kept no checkpoint to go on from: trained from the start" in (
        capsys.readouterr().out
    )
    fresh = train(resolve(choices(f"{job} trainer.max_epochs=5", "alone"))).result
    assert longer.metrics == fresh.metrics
    assert longer.details["epochs"] == 5


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
