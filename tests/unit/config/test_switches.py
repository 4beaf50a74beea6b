"""Hydra's switches may stand anywhere among the choices."""

import pytest

from headstart.config.switches import ordered
from headstart.errors import ConfigError


@pytest.mark.parametrize("switch", [["--config-dir", "own"], ["-cd", "own"], ["--config-dir=own"], ["-m"]])
def test_a_switch_between_two_choices_comes_first_with_its_value(switch: list[str]) -> None:
    given = ["seed=1", *switch, "head=mine"]
    assert ordered(given) == [*switch, "seed=1", "head=mine"]


def test_a_switch_without_its_value_is_left_to_hydra() -> None:
    assert ordered(["seed=1"]) == ["seed=1"]
    with pytest.raises(SystemExit):
        ordered(["seed=1", "--config-dir"])


def test_a_choice_with_dashes_is_told() -> None:
    with pytest.raises(ConfigError, match="'--strategy=full' is no switch; choices have no dashes: strategy=full"):
        ordered(["--strategy=full", "seed=1"])
