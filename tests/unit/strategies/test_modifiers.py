"""Choices that go with any strategy change its phases and nothing else of it."""

import pytest

from headstart.errors import ConfigError
from headstart.strategies import Full, Gradual, ModelInfo, NormOnly, ParameterInfo, StageInfo
from headstart.strategies.modifiers import on_images, phases_after_head, without
from headstart.training.rates import RatePlan, Schedule, check_phases, optimizer_groups

MODEL = ModelInfo(
    (
        StageInfo(
            "stem",
            (
                ParameterInfo("backbone.conv.weight", "weight", 9, decays=True),
                ParameterInfo("backbone.bn.weight", "norm", 3, decays=False),
            ),
        ),
        StageInfo("layer1", (ParameterInfo("backbone.layer1.weight", "weight", 9, decays=True),)),
        StageInfo("head", (ParameterInfo("head.weight", "weight", 6, decays=True),)),
    )
)
BATCHNORM = frozenset({"backbone.bn.weight"})


@pytest.mark.parametrize("strategy", [Full(), Gradual()], ids=["full", "gradual"])
def test_the_head_learns_alone_first_and_then_the_strategy_runs_as_without_it(strategy):
    phases = phases_after_head(strategy, MODEL, max_epochs=10, head_epochs=3)
    check_phases(phases, MODEL, max_epochs=10)
    assert (phases[0].start_epoch, phases[0].end_epoch, phases[0].learning) == (0, 3, {"head.weight"})
    own = strategy.phases(MODEL, max_epochs=7)
    assert [(p.start_epoch - 3, p.end_epoch - 3, p.groups) for p in phases[1:]] == [
        (p.start_epoch, p.end_epoch, p.groups) for p in own
    ]
    assert len({phase.name for phase in phases}) == len(phases)


def test_the_strategys_schedule_starts_after_the_heads():
    phases = phases_after_head(Full(), MODEL, max_epochs=10, head_epochs=4)
    plan = RatePlan(0.1, phases, optimizer_groups(phases, MODEL), Schedule("cosine"))
    head = [group.name for group in plan.groups].index("head")
    assert plan.rates(3.999)[head] == pytest.approx(0.0, abs=1e-6)
    assert plan.rates(4)[head] == pytest.approx(0.1)


def test_no_head_epochs_change_nothing():
    assert phases_after_head(Full(), MODEL, max_epochs=10) == Full().phases(MODEL, max_epochs=10)


def test_the_head_must_leave_epochs_for_the_strategy():
    with pytest.raises(ConfigError, match="head_epochs=10"):
        phases_after_head(Full(), MODEL, max_epochs=10, head_epochs=10)


def test_parameters_can_be_kept_out_of_every_phase():
    phases = without(Full().phases(MODEL, max_epochs=2), BATCHNORM, reason="batchnorm=eval")
    assert phases[0].learning == {"backbone.conv.weight", "backbone.layer1.weight", "head.weight"}


def test_a_strategy_that_is_left_with_nothing_is_an_error():
    with pytest.raises(ConfigError, match="batchnorm=eval"):
        without(NormOnly().phases(MODEL, max_epochs=2), BATCHNORM, reason="batchnorm=eval")


def test_a_reason_for_images_does_not_hide_an_earlier_one():
    phases = on_images(Full().phases(MODEL, max_epochs=2), "first")
    assert [phase.needs_images for phase in on_images(phases, "second")] == ["first"]
