"""Every ``wandb sweep`` file is one that wandb takes, and the commands that its agents start are ones that we take."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from headstart.config import compose
from headstart.config.check import check
from headstart.config.compose import chosen, plain, reference
from headstart.system.catalog import describe

FOLDER = Path(__file__).parents[2] / "experiments" / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))
#: What each kind of distribution needs; a parameter without one has `value` or `values`.
NEEDS = {"log_uniform_values": {"min", "max"}, "int_uniform": {"min", "max"}, "uniform": {"min", "max"}}


def loaded(path: Path) -> dict[str, Any]:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))  # as `wandb sweep` does
    assert isinstance(config, dict)
    return config


def corners(parameter: dict[str, Any]) -> list[Any]:
    """The values at the ends of what the server may ask for."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


def commands(config: dict[str, Any]) -> list[list[str]]:
    """What an agent would start, as ``wandb_agent`` puts it together: one command for each round of values."""
    values = {name: corners(parameter) for name, parameter in config["parameters"].items()}
    found = []
    for number in range(max(map(len, values.values()))):
        asked = {name: {"value": choices[number % len(choices)]} for name, choices in values.items()}
        macros: dict[str, Any] = create_sweep_command_args({"args": asked})
        macros |= {"env": ["/usr/bin/env"], "program": [config["program"]]}
        line: list[str] = []
        for part in create_sweep_command(list(config["command"])):
            line += macros[part[2:-1]] if part.startswith("${") else [str(part)]
        found.append(line)
    return found


def test_there_are_some():
    assert len(FILES) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_wandb_knows_every_key(path: Path):
    config = loaded(path)
    assert describe(path)
    known = {"name", "description", "project", "program", "method", "metric", "parameters", "command", "run_cap"}
    assert set(config) <= known
    assert config["method"] in ("bayes", "random", "grid")
    assert config["metric"] == {"name": "val/acc", "goal": "maximize"}  # never the test split
    for name, parameter in config["parameters"].items():
        kind = parameter.get("distribution")
        expected = {"distribution", *NEEDS[kind]} if kind else ({"value"} if "value" in parameter else {"values"})
        assert set(parameter) == expected, name
        assert None not in corners(parameter), f"{name}: agents hand None over as the text 'None'"
        if config["method"] == "grid":
            assert kind is None, f"{name}: a grid has no ranges"
    # Without an end, an agent would go on for ever.
    assert config["method"] == "grid" or config["run_cap"] >= 10


@pytest.mark.skipif(importlib.util.find_spec("sweeps") is None, reason="needs wandb's sweeps package for its schema")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_wandbs_own_schema_takes_it(path: Path):
    from sweeps.config.schema import fill_validate_schema  # type: ignore[import-not-found]

    assert fill_validate_schema(loaded(path))["method"] == loaded(path)["method"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_commands_of_the_agents_compose(path: Path):
    for line in commands(loaded(path)):
        assert line[:3] == ["/usr/bin/env", "python", "train.py"]
        config = compose(line[3:])
        values = plain(config)
        check(values, reference(config.hydra, chosen(config.hydra, values)))
        assert "wandb" in values["logger"]
        assert values["name"] != "runs"  # a study of its own, with a report of its own
