"""Combinations that cannot work are refused before anything heavy is imported, with the reason."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

from headstart.config import compose, resolve_run
from headstart.config.check import check, check_strategy
from headstart.config.compose import chosen, plain, reference
from headstart.errors import ConfigError
from headstart.frozen.eligible import obstacle
from headstart.strategies import Freeze, Full, ModelInfo, ParameterInfo, StageInfo
from headstart.strategies.modifiers import own_phases
from headstart.strategies.share import BatchStream

OTHER = "+datamodule@sources.other.datamodule=digits"


OWN = """
from dataclasses import dataclass

from headstart.strategies import Freeze, Full, Strategy, one_phase, stage_group


@dataclass(frozen=True)
class Head(Strategy):
    only_head_learns = True

    def phases(self, model, *, max_epochs):
        return one_phase("mine", [stage_group(model.head)], max_epochs)


@dataclass(frozen=True)
class Careful(Full):
    one_class_only = True
    averages_weights = True


@dataclass(frozen=True)
class Anew(Full):
    starts_from_random_weights = True


@dataclass(frozen=True)
class Silent(Strategy):
    def phases(self, model, *, max_epochs):
        return one_phase("mine", [stage_group(model.head)], max_epochs)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DictConfig]]:
    """Checks choices with a strategy of a user's own file, without torch."""
    (tmp_path / "strategies_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "conf" / "strategy"
    folder.mkdir(parents=True)

    def check_own(name: str, *overrides: str) -> DictConfig:
        (folder / "mine.yaml").write_text(f"# Mine.\n_target_: strategies_of_mine.{name}\n")
        checked("strategy=mine", *overrides, config_dir=tmp_path / "conf")
        return compose(["strategy=mine", *overrides], config_dir=tmp_path / "conf")

    yield check_own
    sys.modules.pop("strategies_of_mine", None)


def checked(*overrides: str, sweep: bool = False, config_dir: Path | None = None) -> None:
    config = compose(overrides, config_dir=config_dir)
    values = plain(config)
    given = frozenset(item.partition("=")[0] for item in overrides)
    check(values, reference(config.hydra, chosen(config.hydra, values)), sweep=sweep, given=given)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["strategy=freeze", "head_epochs=2"], "head_epochs=2 has no effect with strategy=freeze"),
        (["strategy=full", "head_epochs=20"], "head_epochs=20 leaves nothing of trainer.max_epochs=20"),
        (["strategy=wise_ft", "head_epochs=2"], "head_init=probe instead"),
        (["strategy=wise_ft", "ema.decay=0.9"], "both average weights"),
        (["head=mlp", "head_init=class_means"], "head_init=class_means sets the weights of one linear layer"),
        (["batch_transform=mixup", "datamodule.batch_size=1"], "datamodule.batch_size=1 has one"),
        (["strategy=distill", "strategy.teacher=null"], "strategy.teacher=PATH"),
        (["strategy=share"], "strategy=share needs another task"),
        (["strategy=full", OTHER], "sources.other has no effect with this strategy"),
        (["strategy=share", "+datamodule@sources.val.datamodule=digits"], "sources.val: a task's name"),
        (["strategy=share", "+sources.other.head=linear"], "sources.other has no datamodule"),
        (["ema.decay=1.0"], "ema.decay=1.0: must be"),
        (["batchnorm=frozen"], "batchnorm=frozen: must be auto, train, eval or affine"),
        (["strategy=lora", "strategy.targets=[convolution]"], "strategy.targets"),
        (["strategy=l2sp", "+strategy.held={}"], "strategy.held is unknown"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(overrides, reason):
    with pytest.raises(ConfigError) as caught:
        checked(*overrides)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["strategy=full"], "solved for on frozen features; use strategy=freeze, or head=linear"),
        (["batch_transform=mixup"], "batch_transform=mixup mixes images in steps"),
        (["head_init=probe"], "head_init=probe sets the weights of one linear layer"),
        (["head_epochs=2"], "head_epochs=2 has no effect with strategy=freeze"),
        (["ema.decay=0.9"], "ema.decay=0.9 averages over steps"),
        (["loss.label_smoothing=0.1"], "loss.label_smoothing=0.1 is unknown to a head in closed form"),
        (["loss.class_weights=balanced"], "loss.class_weights=balanced is unknown to a head in closed form"),
        (["extend=true"], "extend=true has no meaning"),
        (["trainer.devices=2"], "trainer.devices=2 does not go with a head in closed form"),
        (["trainer.devices=[0,1]"], "trainer.devices=[0, 1] does not go with"),
        (["trainer=ddp"], "solved for in one process"),
        (["task=multilabel"], "needs one class an image; use head=ridge"),
        (["task=regression"], "needs one class an image; use head=ridge"),
        (["optimizer=sgd"], "optimizer has no effect on a head in closed form"),
        (["optimizer.lr=0.1"], "optimizer.lr has no effect on a head in closed form"),
        (["scheduler.warmup_epochs=1"], "scheduler.warmup_epochs has no effect"),
        (["strategy.lr_mult=3"], "strategy.lr_mult has no effect"),
        (["datamodule.augment=light"], "datamodule.augment has no effect"),
        (["cache.views=4"], "cache.views has no effect"),
        (["datamodule.sampler=balanced"], "datamodule.sampler has no effect"),
        (["head.l2=0"], "head.l2=0: must be"),
    ],
)
def test_what_has_no_meaning_for_a_head_in_closed_form_is_refused(overrides, reason):
    with pytest.raises(ConfigError) as caught:
        checked("head=logreg", *overrides)
    assert reason in str(caught.value)
    if "no effect on" in reason or reason.endswith("has no effect"):  # in a sweep, other heads may use it
        checked("head=logreg", *overrides, sweep=True)


@pytest.mark.parametrize("task", ["binary", "multilabel", "regression"])
def test_ridge_is_for_every_task(task: str):
    checked("head=ridge", f"task={task}", "datamodule=csv", "datamodule.manifest=x.csv")
    checked("head=logreg", "trainer.max_epochs=3", "datamodule.augment=none")


def test_a_head_of_ones_own_may_be_called_like_one_of_ours():
    own = ["head=knn", "head._target_=mine.NearestNeighbours", "task=multilabel"]
    checked(*own, "datamodule=csv", "datamodule.manifest=x.csv")


def test_choices_about_steps_leave_the_fingerprint_of_a_head_in_closed_form_alone():
    plain_run = resolve_run(compose(["head=ridge", "backbone.weights=bundled"]))
    for overrides in (["trainer.max_epochs=3"], ["callbacks=default", "trainer.num_sanity_val_steps=0"]):
        other = resolve_run(compose(["head=ridge", "backbone.weights=bundled", *overrides]))
        assert (other.fingerprint, other.key) == (plain_run.fingerprint, plain_run.key)
    for overrides in (["head.l2=1"], ["head.refit=false"], ["datamodule.shots=3"]):
        other = resolve_run(compose(["head=ridge", "backbone.weights=bundled", *overrides]))
        assert other.fingerprint != plain_run.fingerprint
    assert plain_run.config["datamodule"]["augment"] == "none"
    assert plain_run.key == "digits-resnet18-ridge-freeze-s1"
    usual = resolve_run(compose(["backbone.weights=bundled"]))
    assert usual.config["optimizer"]["lr"] > 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=full", "head_epochs=2", "batchnorm=eval", "ema.decay=0.99", "head_init=probe"],
        ["strategy=gradual", "batch_transform=cutmix", "batchnorm=affine"],
        ["strategy=share", OTHER, "strategy.loss_weights={other: 0.5}", "strategy.sampling=proportional"],
        ["strategy=distill", "strategy.teacher=somewhere"],
        ["strategy=wise_ft", "strategy.alphas=[0.5,1.0]"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_what_works_together_passes(overrides):
    checked(*overrides)


def test_a_strategy_of_ones_own_that_trains_only_the_head_is_like_freeze(own: Callable):
    own("Head", "head=logreg")
    assert obstacle(resolve_run(own("Head", "backbone.weights=bundled", "trainer=cpu"))) is None
    with pytest.raises(ConfigError, match="head_epochs=2 has no effect"):
        own("Head", "head_epochs=2")
    with pytest.raises(ConfigError, match="says so: only_head_learns = True"):
        own("Silent", "head=logreg")


@pytest.mark.parametrize(
    ("name", "overrides", "reason"),
    [
        ("Careful", ["task=multilabel"], "one class an image"),
        ("Careful", ["ema.decay=0.9"], "both average weights"),
        ("Careful", ["head_epochs=2"], "head_init=probe instead"),
        ("Careful", ["head=logreg"], "solved for on frozen features"),
        ("Anew", ["backbone.weights=bundled"], "trains from random weights"),
        ("Head", [OTHER], "sources.other has no effect"),
    ],
)
def test_rules_ask_what_a_strategy_of_ones_own_says_of_itself(name: str, overrides: list[str], reason: str, own):
    with pytest.raises(ConfigError, match=reason):
        own(name, *overrides)


def test_a_strategy_of_ones_own_that_trains_from_random_weights_gets_none(own: Callable):
    assert resolve_run(own("Anew")).weights.kind == "none"
    assert resolve_run(own("Head", "backbone.weights=bundled")).weights.kind != "none"


@pytest.mark.parametrize("target", ["strategies_of_mine.Careful", "no_such_file.Careful"])
def test_what_cannot_be_imported_early_is_checked_when_it_is_built(target: str, own: Callable):
    """With the same words; what was checked before is not checked again."""
    config = plain(own("Head"))
    config["strategy"] = {"_target_": target}
    config["task"] = "multilabel"

    class Careful(Full):
        one_class_only = True
        starts_from_random_weights = True

    if target.startswith("no_such_file"):
        with pytest.raises(ConfigError, match=r"(?s)task=multilabel does not go with.*backbone\.weights=none"):
            check_strategy(config, Careful())
    else:
        check_strategy(config, Careful())


def test_a_promise_to_train_only_the_head_is_held(model_info: ModelInfo):
    class Liar(Full):
        only_head_learns = True

    class Penalised(Freeze):
        def losses(self, model: Any) -> dict[str, Any]:
            return {}

    assert own_phases(Freeze(), model_info, max_epochs=2)[0].learning == {"head.weight"}
    for strategy, reason in ((Liar(), "phase 'all' trains something else"), (Penalised(), r"it has losses\(\)")):
        with pytest.raises(ConfigError, match=reason):
            own_phases(strategy, model_info, max_epochs=2)


@pytest.fixture
def model_info() -> ModelInfo:
    names = {"one": "backbone.one.weight", "head": "head.weight"}
    return ModelInfo(
        tuple(StageInfo(stage, (ParameterInfo(name, "weight", 4, True),)) for stage, name in names.items())
    )


@pytest.mark.parametrize(("images", "dropped"), [(16, False), (18, True), (19, False), (136, True)])
def test_another_tasks_last_batch_is_never_of_one_image(images: int, dropped: bool):
    assert BatchStream(SimpleNamespace(sizes={"train": images}), 17).drop_last is dropped
