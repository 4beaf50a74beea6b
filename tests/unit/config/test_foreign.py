"""What a run directory may name: classes of this package, and of modules that the user trusts."""

from pathlib import Path

import pytest

from headstart.config.foreign import TRUST_VARIABLE, foreign_component, trust
from headstart.errors import RunError

RUN = Path("outputs/runs/x")


@pytest.fixture(autouse=True)
def _no_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "")


@pytest.mark.parametrize(
    "target",
    [
        "joblib.load",
        "numpy.load",
        "torch.load",
        "torch.hub.load",
        "site.addsitedir",
        "pathlib.Path.write_text",
        "os.system",
        "builtins.exec",
        "hydra.utils.call",
        "headstart.system.atomic.atomic_write",
        "headstart.strategies.contract.Mapping",
        "headstart.strategies.share.nn.Module",
        "headstart.strategies.Absent",
        "headstart.strategies.freeze",
        "headstart.heads.Linear",
        "headstart.strategiesX.Evil",
        "my_strategies.TopStage",
        "",
    ],
)
def test_what_is_no_strategy_of_this_package_is_refused(target: str):
    with pytest.raises(RunError, match="is no part of Headstart, so it was not run"):
        foreign_component({"strategy": {"_target_": target, "filename": "x"}}, "strategy", RUN)


def test_a_class_of_this_package_may_be_named_by_its_file():
    choice = {"strategy": {"_target_": "headstart.strategies.partial.Partial"}}
    assert foreign_component(choice, "strategy", RUN).build().k == 1


def test_a_strategy_of_this_package_is_accepted():
    found = foreign_component({"strategy": {"_target_": "headstart.strategies.Partial", "k": 2}}, "strategy", RUN)
    assert found.build().k == 2


@pytest.mark.parametrize(
    "extra",
    [
        {"_target_": "os.system", "command": "x"},
        [{"deep": {"_target_": "os.system"}}],
        {"_partial_": True},
        "${oc.env:HOME}",
        {"a": ["${oc.env:HOME}"]},
    ],
)
def test_values_that_would_do_more_are_refused(extra: object):
    section = {"_target_": "headstart.strategies.Partial", "stages": extra}
    with pytest.raises(RunError, match="where only plain values belong"):
        foreign_component({"strategy": section}, "strategy", RUN)


def test_arguments_of_the_call_itself_are_refused():
    with pytest.raises(RunError, match="has _args_ within head"):
        foreign_component({"head": {"_target_": "headstart.heads.Linear", "_args_": [1]}}, "head", RUN)


def test_a_module_that_the_user_trusts():
    choice = {"strategy": {"_target_": "my_strategies.TopStage"}}
    with pytest.raises(RunError, match="--trust my_strategies"):
        foreign_component(choice, "strategy", RUN)
    trust(["my_strategies"])
    assert foreign_component(choice, "strategy", RUN).target == "my_strategies.TopStage"
    with pytest.raises(RunError, match="my_strategies2"):
        foreign_component({"strategy": {"_target_": "my_strategies2.TopStage"}}, "strategy", RUN)


def test_a_missing_section_is_told():
    with pytest.raises(RunError, match="has no head; copy the run directory again"):
        foreign_component({}, "head", RUN)
