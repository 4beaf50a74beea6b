"""From overrides to one decided run: what is refused and how, what enters the fingerprint, what the key says."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import pytest

from headstart.commands.cli import main
from headstart.config import ResolvedRun, compose, resolve_run, weights
from headstart.config.check import like
from headstart.config.compose import plain
from headstart.errors import ConfigError
from headstart.system.digests import digest
from headstart.system.hardware import Hardware
from headstart.system.names import nearest
from headstart.system.options import AtLeast, fits, wording


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch):
    """A CPU without bfloat16, wherever the tests run."""
    machine = Hardware(cores=2)
    monkeypatch.setattr("headstart.config.resolve.detect", lambda: machine)


def resolve(*overrides: str, config_dir: Path | None = None) -> ResolvedRun:
    """Decide a run that needs no network: the bundled weights, unless others are given or replaced."""
    if not overrides and config_dir is None:
        return usual_run()
    return decide(*overrides, config_dir=config_dir)


@cache
def usual_run() -> ResolvedRun:
    return decide()


def decide(*overrides: str, config_dir: Path | None = None) -> ResolvedRun:
    given = list(overrides)
    if not any(item.startswith(("backbone.weights=", "strategy=scratch")) for item in given):
        given.append("backbone.weights=bundled")
    return resolve_run(compose(given, config_dir=config_dir))


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(*overrides)
    return str(caught.value)


# What is refused.


WRONG_VALUES = {
    "trainer.max_epochs=0": "trainer.max_epochs=0: must be a whole number of at least 1",
    "seed=1.5": "seed=1.5: must be a whole number of at least 0",
    "datamodule.split_seed=true": "datamodule.split_seed=true: must be a whole number of at least 0",
    "optimizer.lr=nan": "optimizer.lr=nan: must be a number above 0",
    "optimizer.betas=[0.9]": "optimizer.betas=[0.9]: must be a list such as [...] with 2 times a number",
    "rerun=al": "rerun=al: must be failed, all or none; did you mean all?",
    "debug=maybe": "debug=maybe: must be true or false",
    "datamodule.num_workers=-1": "datamodule.num_workers=-1: must be auto or a whole number of at least 0",
    "datamodule.image_size=[224]": "datamodule.image_size=[224]: must be a whole number of at least 1 or a list",
    "datamodule.drop_last=null": "datamodule.drop_last=null: must be true or false",
    "name=a/b": "name=a/b: must be a text that can name a folder",
    "backbone.name=null": "backbone.name=null: must be a text",
    "~optimizer.weight_decay": "optimizer.weight_decay was removed",
    "~logger": "logger was removed",
    "callbacks.early_stopping=true": "is a group of keys; set one of them: callbacks.early_stopping.enabled",
    "trainer.limit_val_batches=0": "trainer.limit_val_batches=0: must be a whole number of at least 1 or a num",
    "trainer.limit_train_batches=0": "trainer.limit_train_batches=0: must be a whole number of at least 1",
    "trainer.max_steps=0": "trainer.max_steps=0: must be -1 or a whole number of at least 1",
    "trainer.max_time=0:10": "trainer.max_time=0:10: must be a text that is days:hours:minutes:seconds",
    'trainer.devices="0"': "trainer.devices=0: must be auto or -1 or a whole number of at least 1 or a list",
    "trainer.strategy=foo": "trainer.strategy=foo: must be a text that names a strategy of Lightning: auto, ddp",
    "paths.data_dir='/tmp/a\0b'": "paths.data_dir='/tmp/a\\x00b'...: has a NUL character",
    f"paths.cache_dir=/tmp/{'x/' * 2500}": "has 5,005 characters; a text or path has up to 4,095",
    f"study.primary={'x' * 5000}": "has 5,000 characters",
    "+callbacks.lr_monitor=true": "callbacks.lr_monitor is no key any more: learning rates are always logged",
    "+trainer.max_epoch=3": "trainer.max_epoch is unknown; did you mean trainer.max_epochs?",
    "+los.label_smoothing=0.1": "los.label_smoothing is unknown; did you mean loss.label_smoothing?",
}


def test_every_wrong_value_is_named_with_what_is_allowed():
    message = refused(*WRONG_VALUES)
    assert [expected for expected in WRONG_VALUES.values() if expected not in message] == []
    assert len(message.splitlines()) == len(WRONG_VALUES)


@pytest.mark.parametrize("study", ["../x", ".hidden", '"a\nb"'])
def test_a_study_is_one_folder(study: str):
    assert "must be a text that can name a folder" in refused(f"name={study}")


def test_strategy_parameters_follow_their_annotations():
    assert "strategy.backbone_lr_mult=x: must be a number above 0" in refused(
        "strategy=full", "strategy.backbone_lr_mult=x"
    )
    assert "did you mean strategy.backbone_lr_mult?" in refused("strategy=full", "+strategy.backbone_lr_mul=1")
    assert resolve("strategy=full", "strategy.backbone_lr_mult=1").config["strategy"]["backbone_lr_mult"] == 1


@pytest.mark.parametrize(
    ("strategy", "choice", "message"),
    [
        ("bss", "k=0", "must be a whole number of at least 1"),
        ("bss", "eta=-1", "must be a number of at least 0"),
        ("layerwise", "decay=-1", "must be a number above 0"),
        ("layerwise", "decay=1.5", "at most 1"),
        ("freeze", "lr_mult=-1", "must be a number above 0"),
        ("lora", "rank=0", "must be a whole number of at least 1"),
        ("lora", "dropout=1", "below 1"),
        ("l2sp", "alpha=-1", "must be a number of at least 0"),
        ("gradual", "full_by=-1", "must be a number above 0"),
        ("lp_ft", "first_stage_lr_mult=0", "must be a number above 0"),
    ],
)
def test_a_strategys_numbers_mean_what_they_say(strategy: str, choice: str, message: str):
    said = refused(f"strategy={strategy}", f"strategy.{choice}")
    assert f"strategy.{choice}: " in said
    assert message in said


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=scratch", "backbone.weights=bundled"], "backbone.weights=bundled has no effect"),
        (["datamodule.shots=5", "datamodule.fraction=0.5"], "both shrink the training split"),
        (["datamodule.val_fraction=0.6", "datamodule.test_fraction=0.4"], "nothing to train on"),
        (
            ["scheduler.warmup_epochs=3", "trainer.max_epochs=2"],
            "scheduler.warmup_epochs=3 exceeds trainer.max_epochs=2",
        ),
        (["trainer.min_epochs=3", "trainer.max_epochs=2"], "trainer.min_epochs=3 exceeds"),
        (["callbacks.early_stopping.enabled=true", "trainer.max_epochs=10"], "can never stop"),
        (["task=binary"], "task=binary needs two classes, and this data set has 10"),
        (["loss.class_weights=[1,2]"], "has 2 numbers for 10 classes"),
        (["datamodule.sampler=balanced", "loss.class_weights=balanced"], "both make up for rare classes"),
        (["datamodule.sampler=balanced", "loss.class_weights=[1,2,1,1,1,1,1,1,1,1]"], "both make up for rare classes"),
        (["datamodule.sampler=balanced", "task=regression"], "does not go with task=regression"),
        (["datamodule.sampler=even"], "datamodule.sampler=even: must be balanced or null"),
        (["datamodule.fit=square"], "datamodule.fit=square: must be crop, squash or pad or null"),
        (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], "needs optimizer.momentum above 0"),
        (["trainer=cpu", "trainer.precision=16-mixed"], "use bf16-mixed or 32-true"),
        (["trainer.precision=16"], "trainer.precision=16-mixed does not run on the CPU; use bf16-mixed or 32-true"),
        (["trainer=ddp_cpu", "trainer.sync_batchnorm=true"], "works on GPUs only"),
        (["trainer.sync_batchnorm=true"], "works on GPUs only"),
        (["trainer.devices=[0,1]"], "trainer.devices=[0, 1] names GPUs, and the training runs on the CPU"),
        (["trainer.devices='0,1'"], "trainer.devices=[0, 1] names GPUs, and the training runs on the CPU"),
        (["trainer.devices=[]"], "trainer.devices=[]: must name each device once"),
        (["trainer.max_time={hour: 1}"], "trainer.max_time has no hour; it takes weeks, days, hours"),
        (["trainer.max_time={hours: 0}"], "trainer.max_time={hours: 0}: must be numbers of at least 0 that are not"),
        (["trainer.max_time={hours: x}"], "trainer.max_time={hours: x}: must be numbers"),
        (["trainer.check_val_every_n_epoch=2", "scheduler=plateau"], "trainer.check_val_every_n_epoch=2 skips some"),
        (
            ["logger=wandb", "logger.wandb.project=a/b"],
            "logger.wandb.project=a/b: must be a text that Weights & Biases",
        ),
        (["extend=true", "rerun=all"], "give one of them"),
        (["trainer.precision=64-true"], "trainer.precision=64-true: must be auto, 32-true"),
        (
            ["strategy=share", "+datamodule@sources.o.datamodule=digits", "sources.o.datamodule.steps_per_epoch=3"],
            "sources.o.datamodule.steps_per_epoch has no effect",
        ),
        (["datamodule=svhn", "datamodule.vtab_1k=final", "head=logreg"], "head.l2=None is chosen on images that"),
        (["datamodule=svhn", "datamodule.vtab_1k=final", "head=knn"], "head.k=[1, 2, 5"),
        (["datamodule=svhn", "datamodule.vtab_1k=final", "head_init=probe"], "head_init=probe decides on images"),
        (
            ["datamodule=svhn", "datamodule.vtab_1k=final", "head=ridge", "head.l2=1", "head.refit=true"],
            "head.refit=true takes the validation images twice",
        ),
        (["trainer=gpu"], "no GPU is visible"),
        (["paths.output_dir=/etc/passwd"], "paths.output_dir=/etc/passwd: /etc/passwd is no folder; give another"),
        (["paths.cache_dir=/etc/passwd/a/b"], "paths.cache_dir=/etc/passwd/a/b: /etc/passwd is no folder"),
        ([f"paths.output_dir=/tmp/{'x' * 300}"], "xxx... has 300 characters, more than a name can have"),
        (["datamodule=folder", f"datamodule.root=/tmp/{'x' * 300}"], "datamodule.root: xxx"),
        (["datamodule=folder", "datamodule.root=/etc/passwd"], "/etc/passwd is no folder"),
        (["datamodule=csv", f"datamodule.manifest=/tmp/{'x' * 300}/a.csv"], "datamodule.manifest: xxx"),
        (["datamodule=folder", "datamodule.root=nowhere"], "datamodule.root=nowhere: there is no such folder"),
    ],
)
def test_an_impossible_combination_says_why_and_what_to_do(overrides: list[str], message: str):
    assert message in refused(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=scratch"],
        ["strategy=scratch", "backbone.weights=none"],
        ["scheduler.warmup_epochs=2", "trainer.max_epochs=2"],
        ["callbacks.early_stopping.enabled=true", "callbacks.early_stopping.patience=3"],
        ["datamodule.shots=5"],
        ["loss.class_weights=balanced"],
        ["trainer=ddp_cpu"],
        ["trainer.fast_dev_run=true", "trainer.limit_train_batches=0.1", "trainer.overfit_batches=2", "optimizer.lr=1"],
        ["trainer.max_time=00:01:30:00", "trainer.devices=2", "trainer.strategy=ddp_spawn"],
        ["trainer.max_time={hours: 1}", "trainer.profiler=simple", "trainer.deterministic=warn"],
        ["+backbone.some_parameter=0.1", "+trainer.limit_predict_batches=3", "datamodule.image_size=[32,64]"],
        ["logger=[tensorboard,wandb]", "logger.wandb.tags=[a,b]", "datamodule.image_size=null"],
    ],
)
def test_a_right_choice_passes(overrides: list[str]):
    assert resolve(*overrides).config


# A user's own YAML files.


@pytest.fixture
def own_group(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / "own" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path / "own"

    return write


def test_a_users_own_yaml_is_its_own_schema(own_group, tmp_path: Path):
    own = own_group("head/mine", "# Mine.\n_target_: mine.Head\nwidth: 8\ngain: 1.0\nkind: a\nsizes: [1]\nfree: null\n")
    folder = own.rename(tmp_path / "a folder, with = and 'quotes'")
    assert resolve("head=mine", "head.width=16", config_dir=folder).choices["head"] == "mine"
    for override, message in [
        ("head.width=wide", "head.width=wide: must be a whole number"),
        ("head.gain=high", "head.gain=high: must be a number"),
        ("head.kind=3", "head.kind=3: must be a text or null"),
        ("head.sizes=3", "head.sizes=3: must be a list"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(message)):
            resolve_run(compose(["head=mine", override, "backbone.weights=bundled"], config_dir=folder))
    assert resolve("head=mine", "head.free=[1,2]", config_dir=folder).config["head"]["free"] == [1, 2]


def test_a_typo_in_an_experiment_is_found(own_group):
    """Hydra itself merges any key of an experiment's file."""
    own = own_group("experiment/mine", "# @package _global_\ntrainer:\n  max_epoch: 3\nhead:\n  droput: 0.1\n")
    with pytest.raises(ConfigError) as caught:
        resolve("experiment=mine", config_dir=own)
    assert "trainer.max_epoch is unknown; did you mean trainer.max_epochs?" in str(caught.value)
    assert "head.droput is unknown; did you mean head.dropout?" in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("experiment/mine", "trainer:\n  max_epochs: 3\n", "does not begin with the line `# @package _global_`"),
        ("experiment/mine", "", "is empty or does not begin with the line"),
        ("head/mine", "", "head names no class: its YAML file is empty, or"),
        ("head/mine", "head:\n  _target_: headstart.heads.Linear\n", "head names no class"),
        ("strategy/mine", "# @package _global_\ntrainer:\n  max_epochs: 3\n", "strategy names no class"),
    ],
)
def test_a_file_of_the_users_whose_keys_nothing_reads_is_told(own_group, file: str, text: str, message: str):
    own = own_group(file, text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolve(file.replace("/", "="), config_dir=own)


def test_an_override_in_an_experiment_out_of_place_is_told(own_group, capsys: pytest.CaptureFixture[str]):
    own = own_group("experiment/mine", "defaults:\n  - override /strategy: full\n")
    assert main(["train", "--config-dir", str(own), "experiment=mine"]) == 1
    assert "error: the file of the experiment is empty or does not begin with" in capsys.readouterr().err


def test_the_command_line_wins_over_an_experiment(own_group):
    own = own_group(
        "experiment/mine",
        "# @package _global_\ndefaults:\n  - override /strategy: full\n  - override /logger: [csv, tensorboard]\n"
        "trainer:\n  max_epochs: 3\n",
    )
    run = resolve("experiment=mine", "trainer.max_epochs=4", config_dir=own)
    assert (run.choices["strategy"], run.choices["experiment"], run.choices["logger"]) == (
        "full",
        "mine",
        "csv+tensorboard",
    )
    assert run.config["trainer"]["max_epochs"] == 4
    assert resolve("experiment=mine", "strategy=freeze", config_dir=own).choices["strategy"] == "freeze"


# What is decided.


def test_everything_open_is_decided_without_torch_or_a_network():
    run = resolve()
    assert run.weights.kind == "bundled"
    assert run.config["backbone"]["weights"] == "bundled"
    trainer = run.config["trainer"]
    assert (trainer["accelerator"], trainer["devices"], trainer["precision"]) == ("cpu", 1, "32-true")
    assert all(Path(run.config["paths"][key]).is_absolute() for key in ("output_dir", "cache_dir", "data_dir"))
    json.dumps(run.config)  # plain containers only


def test_a_result_names_its_choices():
    flat = resolve("strategy=full", "seed=3", "trainer.max_epochs=7", "logger=[tensorboard,wandb]").flat()
    assert {key: flat[key] for key in ("backbone", "head", "strategy", "datamodule", "optimizer", "scheduler")} == {
        "backbone": "resnet18",
        "head": "linear",
        "strategy": "full",
        "datamodule": "digits",
        "optimizer": "adamw",
        "scheduler": "cosine",
    }
    assert (flat["seed"], flat["max_epochs"], flat["logger"]) == (3, 7, "tensorboard+wandb")
    assert "trainer.max_epochs=7" in flat["overrides"]


# The fingerprint.


NOT_IN_RESULT = (
    "datamodule.num_workers=3",
    "datamodule.pin_memory=true",
    "cache=off",
    "logger=tensorboard",
    "callbacks.progress=none",
    "study.primary=full",
    "callbacks.plots=false",
    "trainer.log_every_n_steps=1",
    "trainer.profiler=simple",
    "trainer.precision=32",
    "trainer=cpu",
    "paths.output_dir=elsewhere",
    "paths.cache_dir=elsewhere",
    "name=another",
    "debug=true",
    "rerun=none",
    "extend=true",
    "plan=true",
    "optimizer.lr=0.001",
    "optimizer.weight_decay=1e-2",
)


def test_what_does_not_change_the_result_does_not_change_the_run():
    run = resolve(*NOT_IN_RESULT)
    assert run.config["paths"]["output_dir"].endswith("elsewhere")
    assert (run.fingerprint, run.key) == (resolve().fingerprint, resolve().key)


@pytest.mark.parametrize(
    "override",
    [
        "seed=2",
        "strategy=full",
        "head=mlp",
        "optimizer=sgd",
        "optimizer.lr=0.002",
        "scheduler=none",
        "trainer.max_epochs=21",
        "trainer.precision=bf16-mixed",
        "trainer=ddp_cpu",
        "trainer.gradient_clip_val=1",
        "trainer.limit_train_batches=2",
        "datamodule.batch_size=16",
        "datamodule.augment=randaug",
        "datamodule.shots=5",
        "datamodule.split_seed=1",
        "datamodule.image_size=32",
        "backbone.weights=none",
        "loss.label_smoothing=0.1",
        "callbacks.early_stopping.enabled=true",
    ],
)
def test_what_changes_the_result_changes_the_run(override: str):
    assert resolve(override).fingerprint != resolve().fingerprint


def test_longer_training_is_another_run_of_the_same_lineage():
    short, long, other = resolve("trainer.max_epochs=2"), resolve("trainer.max_epochs=4"), resolve("seed=2")
    assert short.fingerprint != long.fingerprint
    assert short.lineage == long.lineage != other.lineage


def test_images_count_by_content_not_by_place(image_folder, tmp_path: Path):
    root = image_folder(splits={"": 3})
    first = resolve("datamodule=folder", f"datamodule.root={root}")
    moved = root.rename(tmp_path / "moved")
    assert resolve("datamodule=folder", f"datamodule.root={moved}").fingerprint == first.fingerprint
    next(moved.rglob("*.png")).unlink()
    assert resolve("datamodule=folder", f"datamodule.root={moved}").fingerprint != first.fingerprint
    assert first.key.startswith("images-resnet18-linear-freeze-s1")


def test_weights_count_by_content_not_by_place(tmp_path: Path):
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(b"the same bytes")
    (tmp_path / "c.safetensors").write_bytes(b"other bytes")
    a, b, c = (resolve(f"backbone.weights={tmp_path / f'{name}.safetensors'}") for name in "abc")
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_auto_weights_are_decided_once_for_all_processes_of_a_command(monkeypatch: pytest.MonkeyPatch):
    name = "some_network_of_this_test"
    variable = f"HEADSTART_AUTO_WEIGHTS_{digest(name)[:12]}"
    monkeypatch.setenv(variable, "")
    monkeypatch.delenv(variable)  # so that it is gone after the test too
    asked: list[str] = []

    def resolve_weights(name: str, choice: str = "auto", **_: object) -> SimpleNamespace:
        asked.append(choice)
        return SimpleNamespace(choice="bundled" if choice == "auto" else choice)

    monkeypatch.setattr("headstart.weights.sources.resolve_weights", resolve_weights)
    config = {"backbone": {"name": name, "weights": "auto"}}
    assert weights.resolve_backbone_weights(config, scratch=False).choice == "bundled"
    weights._resolve.cache_clear()  # what a child process starts with, beside the environment
    assert weights.resolve_backbone_weights(config, scratch=False).choice == "bundled"
    assert asked == ["auto", "bundled"]
    weights._resolve.cache_clear()


# The key.


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([], "digits-resnet18-linear-freeze-s1"),
        (["seed=12", "strategy=full"], "digits-resnet18-linear-full-s12"),
        (["optimizer=sgd", "optimizer.lr=0.02"], "digits-resnet18-linear-freeze-s1-sgd-lr0.02"),
        (["trainer.max_epochs=3", "datamodule.shots=5"], "digits-resnet18-linear-freeze-s1-shots5-max_epochs3"),
    ],
)
def test_the_key_says_what_a_reader_would_ask(overrides: list[str], key: str):
    assert resolve(*overrides).key == key


def test_the_key_says_the_last_part_of_a_path(tmp_path: Path):
    task = "datamodule@sources.photos.datamodule"
    source = ["strategy=share", f"+{task}=folder", f"sources.photos.datamodule.root={tmp_path}"]
    assert resolve(*source).key == f"digits-resnet18-linear-share-s1-root{tmp_path.name}"


def test_the_key_is_safe_and_short(tmp_path: Path):
    root = tmp_path / ("Ünsafe näme (1)/x" + "y" * 150)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(b"x")
    key = resolve("datamodule=folder", f"datamodule.root='{root}'", "head=mlp", "head.hidden=[10,20]").key
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,96}", key)
    assert not key.endswith((".", "-"))


# The parts.


def test_the_nearest_name():
    keys = ["optimizer.lr", "trainer.max_epochs", "datamodule.batch_size", "backbone.name", "name", "seed"]
    expected = {
        "lr": "optimizer.lr",
        "trainer.max_epoch": "trainer.max_epochs",
        "optimiser.lr": "optimizer.lr",
        "batchsize": "datamodule.batch_size",
        "naem": "name",
        "zzzz": None,
    }
    assert {name: nearest(name, keys) for name in expected} == expected


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        (1.0, int, False),
        (None, int | None, True),
        ("a", int | None, False),
        ([1, 2], tuple[int, ...], True),
        ([1, "a"], tuple[int, ...], False),
        ([1, 2, 3], tuple[float, float], False),
        ("ab", list[str], False),
        ({"a": 1}, dict[str, int], True),
    ],
)
def test_values_fit_annotations(value: object, annotation: object, expected: bool):
    assert fits(value, annotation) is expected


def test_fields():
    assert not fits(True, Annotated[int, AtLeast(1)])
    assert not fits(float("inf"), float)
    assert wording(Literal["a"] | int) == "a or a whole number"
    assert fits(2, like(1.5))
    assert not fits(1.5, like(2))
    assert fits(3, like("auto"))


def test_plain_has_no_hydra_node():
    assert "hydra" not in plain(compose())
