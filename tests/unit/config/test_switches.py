"""Hydra's switches may stand anywhere among the choices, and what each job of a sweep gets of them."""

import pytest

from headstart.config.switches import for_each_job, ordered
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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["head=logreg,ridge", "head.refit=false"], ["head=logreg,ridge", "head.refit=choice(False)"]),
        (["head=a,b", "head.l2=[1,2]"], ["head=a,b", "head.l2=choice([1,2])"]),
        # A key of a group that does not vary, one that varies itself, one that is added, and no override at all.
        (["head=linear", "head.l2=1", "seed=1,2"], ["head=linear", "head.l2=1", "seed=1,2"]),
        (["head=a,b", "head.l2=1,2"], ["head=a,b", "head.l2=1,2"]),
        (["head=a,b", "+head.l2=1"], ["head=a,b", "+head.l2=1"]),
        (["head=a,b", "head.l2=(", "x=1"], ["head=a,b", "head.l2=(", "x=1"]),
    ],
)
def test_keys_of_a_group_that_varies_are_left_to_the_jobs(arguments: list[str], expected: list[str]):
    assert for_each_job(arguments) == expected


def test_an_argument_that_is_no_override_stays():
    switches = ["-m", "-cd", "own"]
    assert for_each_job([*switches, "head=a,b", "head.l2=1"]) == [*switches, "head=a,b", "head.l2=choice(1)"]
