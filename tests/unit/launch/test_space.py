"""What a search may choose from, as it is written on the command line."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from headstart.errors import ConfigError
from headstart.launch.space import Space, build_space


def space(*overrides: str, per: str = "strategy") -> Space:
    return build_space(OverridesParser.create().parse_overrides(list(overrides)), per=per)


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        ("k=interval(0.1,0.9)", FloatDistribution(0.1, 0.9)),
        ("k=tag(log,interval(1e-5,1e-1))", FloatDistribution(1e-5, 1e-1, log=True)),
        ("k=interval(1,8)", FloatDistribution(1, 8)),
        ("k=int(interval(1,8))", IntDistribution(1, 8)),
        ("k=range(1,9,2)", IntDistribution(1, 7, step=2)),
        ("k=tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("k=tag(log,range(0.1,0.35,0.1))", FloatDistribution(0.1, 0.30000000000000004, log=True)),
        ("k=range(0.0,0.75,0.25)", FloatDistribution(0.0, 0.5, step=0.25)),
        ("k=a,b", CategoricalDistribution(("a", "b"))),
        ("k=choice(1,x,[2,3])", CategoricalDistribution(("1", "x", "[2,3]"))),
    ],
)
def test_each_way_to_write_it(override, distribution):
    [dimension] = space(override).dimensions
    assert dimension.distribution() == distribution


def test_values_go_back_into_overrides_that_hydra_reads():
    found = space("a=int(interval(1,8))", "+b=tag(log,interval(1e-9,1))", "c='x y',z", "seed=3")
    overrides = found.overrides("", {"a": 4, "+b": 1.5e-08, "c": found.dimensions[2].choices[0]})
    assert overrides == ["seed=3", "a=4", "+b=1.5e-08", "c='x y'"]
    values = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(overrides)}
    assert values == {"seed": 3, "a": 4, "b": 1.5e-08, "c": "x y"}


def test_the_choices_of_one_key_are_arms():
    found = space("strategy=freeze,full", "optimizer.lr=interval(0.1,1)", "head=linear,mlp", "name=x")
    assert found.arms == ("strategy=freeze", "strategy=full")
    assert [dimension.key for dimension in found.dimensions] == ["optimizer.lr", "head"]
    assert found.overrides("strategy=full", {"optimizer.lr": 0.5, "head": "mlp"}) == [
        "name=x",
        "strategy=full",
        "optimizer.lr=0.5",
        "head=mlp",
    ]
    assert space("strategy=freeze,full", "head=linear,mlp", per="head").arms == ("head=linear", "head=mlp")


def test_the_command_line_comes_before_an_experiments_own_ranges():
    found = space("optimizer.lr=interval(0.1,1)", "head=linear,mlp", "optimizer.lr=0.3")
    assert found.fixed == ("optimizer.lr=0.3",)
    assert [dimension.key for dimension in found.dimensions] == ["head"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("seed=1", "strategy=freeze,full"), "nothing to search"),
        (("k=interval(2,1)",), "2 is above 1"),
        (("k=tag(log,interval(0,1))",), "numbers above 0"),
        (("k=range(5,1)",), "is empty"),
    ],
)
def test_what_cannot_be_searched_is_said(overrides, message):
    with pytest.raises(ConfigError, match=message):
        space(*overrides)
