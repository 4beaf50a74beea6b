"""What trains together, and the reason why something does not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.config import ResolvedRun, compose, resolve_run
from headstart.frozen.eligible import _FOLLOWED, _USUAL, obstacle, shared_part
from headstart.launch.request import read_request, write_request


@pytest.fixture
def resolved(tmp_path: Path) -> Callable[..., ResolvedRun]:
    def make(*overrides: str) -> ResolvedRun:
        fixed = ("backbone.weights=bundled", "trainer=cpu", "trainer.precision=32-true")
        return resolve_run(compose([*fixed, f"paths.output_dir={tmp_path}", *overrides]))

    return make


def test_the_default_job_trains_together_and_every_switch_of_the_trainer_is_known(resolved: Callable):
    run = resolved()
    assert obstacle(run) is None
    known = set(_FOLLOWED) | set(_USUAL)
    assert set(run.settings.trainer.switches) - known == set(), (
        "say in frozen/eligible.py what the heads' loop makes of these"
    )


REFUSED = {
    "strategy=full": "strategy=full",
    "strategy=lp_ft": "strategy=lp_ft",
    "cache=off": "cache=off",
    "datamodule.augment=light cache.views=0": "augment=light",
    "batch_transform=mixup": "mixes images",
    "ema.decay=0.9": "ema.decay",
    "head_init=class_means": "head_init",
    "logger=wandb": "logger=wandb",
    "trainer.accumulate_grad_batches=2": "accumulate_grad_batches=2",
    "trainer.limit_train_batches=2": "limit_train_batches=2",
    "trainer.limit_train_batches=1": "limit_train_batches=1",
    "trainer.max_steps=5": "max_steps=5",
    "trainer.check_val_every_n_epoch=2": "check_val_every_n_epoch=2",
    "trainer.fast_dev_run=true": "fast_dev_run=True",
    "optimizer._target_=torch.optim.NAdam": "not one of AdamW, Adam, SGD, RMSprop",
    "extend=true": "extend",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_trains_alone_has_a_reason(override: str, resolved: Callable):
    extra = ("trainer.min_epochs=null",) if "trainer" in override else ()
    assert REFUSED[override] in (obstacle(resolved(*override.split(), *extra)) or "")


def test_several_processes_train_alone(resolved: Callable):
    assert obstacle(resolved("trainer=ddp_cpu", "trainer.devices=2")) == "several processes train it"


def test_augmented_views_are_stored_and_train_together(resolved: Callable):
    assert obstacle(resolved("datamodule.augment=light", "cache.views=3")) is None
    assert obstacle(resolved("datamodule.augment=light")) is None


SAME = (
    "seed=2",
    "optimizer=sgd",
    "optimizer.lr=0.5",
    "scheduler=step",
    "head=mlp",
    "head.dropout=0.1",
    "datamodule.shots=3",
    "datamodule.batch_size=8",
    "loss.label_smoothing=0.1",
    "trainer.max_epochs=3",
    "trainer.gradient_clip_val=1.0",
    "callbacks.early_stopping.enabled=true",
    "name=other",
)
OTHER = (
    "backbone=small_cnn backbone.weights=none",
    "datamodule.image_size=32",
    "datamodule.split_seed=1",
    "cache.dtype=half",
    "trainer.precision=bf16-mixed",
    "paths.cache_dir=elsewhere",
)


@pytest.mark.parametrize("override", SAME)
def test_what_may_differ(override: str, resolved: Callable):
    assert shared_part(resolved(override)) == shared_part(resolved())


@pytest.mark.parametrize("overrides", OTHER)
def test_what_must_be_the_same(overrides: str, resolved: Callable):
    assert shared_part(resolved(*overrides.split())) != shared_part(resolved())


def test_random_weights_depend_on_the_seed(resolved: Callable):
    choice = ("backbone=small_cnn", "backbone.weights=none")
    assert shared_part(resolved(*choice)) != shared_part(resolved(*choice, "seed=2"))


def test_a_request_arrives_as_it_was(resolved: Callable, tmp_path: Path):
    runs = [resolved("seed=3", "optimizer.betas=[0.8,0.9]"), resolved("head=mlp", "head.hidden=[3,4]")]
    path = tmp_path / "request.json"
    write_request(path, runs)
    assert read_request(path) == runs
