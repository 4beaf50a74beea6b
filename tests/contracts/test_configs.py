"""Every YAML file composes, passes its own schema, says what it is and is what the code expects."""

import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from headstart.config import compose
from headstart.config.check import check
from headstart.config.compose import chosen, plain, reference
from headstart.config.schema import COMPONENTS, LIGHTNING_SWITCHES, SPEC
from headstart.system.catalog import GROUPS, conf_dir, describe
from headstart.system.names import leaves

CONF = conf_dir()
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
CHOICES = [name for name in FILES if "/" in name and not name.startswith("hydra/") and "/_" not in name]

#: What must be given with an option that has no default of its own.
REQUIRED = {
    "datamodule.root": "somewhere",
    "datamodule.manifest": "somewhere.csv",
    "backbone.name": "resnet18",
    "strategy.teacher": "somewhere",
}
#: What an option makes no sense without.
WITH = {
    "strategy/share": ("+datamodule@sources.other.datamodule=digits",),
    "head/dense": ("task=segmentation",),
    **{f"datamodule/{name}": ("task=segmentation", "head=dense") for name in ("masks", "masks_csv", "shapes")},
}


@cache
def composed(*overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A configuration and what its YAML files alone say; required values are filled in."""
    missing = OmegaConf.missing_keys(compose(overrides))
    config = compose([*overrides, *(f"{key}={REQUIRED[key]}" for key in sorted(missing & set(REQUIRED)))])
    values = plain(config)
    return values, reference(config.hydra, chosen(config.hydra, values))


@pytest.mark.parametrize("name", CHOICES)
def test_every_file_composes_and_passes_the_schema(name: str):
    group, _, option = name.partition("/")
    values, defaults = composed(f"{group}={option}", *WITH.get(name, ()))
    if name == "trainer/ddp":  # needs GPUs only when it runs
        assert values["trainer"]["strategy"] == "ddp"
    check(values, defaults)
    assert group in values or group == "experiment"


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_what_it_is_in_its_first_line(name: str):
    description = describe(CONF / f"{name}.yaml")
    assert len(description) >= 6, f"conf/{name}.yaml needs a header comment: its first line is shown by --help"


def test_every_group_is_explained():
    assert {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra"} == set(GROUPS)


@pytest.mark.parametrize("name", [name for name in CHOICES if name.partition("/")[0] in COMPONENTS])
def test_every_component_exists(name: str):
    """A target is a public name: importable, and not a long path into a module that may move."""
    group, _, option = name.partition("/")
    values, _ = composed(f"{group}={option}")
    module, _, attribute = values[group]["_target_"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_every_schema_entry_is_a_key_of_some_file():
    """An entry that no file has is dead, or its key was renamed and is no longer checked."""
    keys: set[str] = set()
    for name in ["", *CHOICES]:
        group, _, option = name.partition("/")
        keys |= set(leaves((composed(f"{group}={option}") if name else composed())[0]))
    # Of a dictionary with keys of the user's own, the key itself.
    keys |= {key.rsplit(".", parts)[0] for key in keys for parts in range(1, key.count("."))}
    assert set(SPEC) - keys - set(LIGHTNING_SWITCHES) == set()


def test_lightning_takes_every_trainer_key():
    import pytorch_lightning as pl

    taken = set(inspect.signature(pl.Trainer.__init__).parameters)
    own = {"channels_last", "compile"}
    given = {key.partition(".")[2] for key in SPEC if key.startswith("trainer.")}
    assert given - own <= taken
    assert set(composed()[0]["trainer"]) - own <= taken


@pytest.mark.parametrize("name", [name for name in CHOICES if name.startswith("optimizer/")])
def test_every_optimizer_takes_its_keys(name: str):
    import torch

    values, _ = composed(name.replace("/", "="))
    arguments = dict(values["optimizer"])
    target = getattr(torch.optim, arguments.pop("_target_").rpartition(".")[2])
    optimizer = target([torch.nn.Parameter(torch.ones(1))], **arguments)
    assert optimizer.param_groups[0]["lr"] == values["optimizer"]["lr"]


@pytest.mark.parametrize("name", [name for name in CHOICES if name.startswith("scheduler/")])
def test_every_scheduler_is_a_schedule(name: str):
    from headstart.training.rates import Schedule

    values, _ = composed(name.replace("/", "="))
    assert Schedule(**values["scheduler"]).name == Path(name).name
