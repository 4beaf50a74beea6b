"""Every strategy's decisions on a hand-made model: what learns when, how fast, and what is frozen."""

import pytest

from headstart.errors import ConfigError
from headstart.strategies import (
    BitFit,
    Freeze,
    Full,
    Gradual,
    Layerwise,
    LpFt,
    ModelInfo,
    NormOnly,
    ParameterInfo,
    Partial,
    Scratch,
    StageInfo,
    Strategy,
)
from headstart.training.rates import RatePlan, Schedule, check_phases, optimizer_groups

STAGES = ("stem", "layer1", "layer2", "layer3")


def stage(name: str, prefix: str) -> StageInfo:
    return StageInfo(
        name,
        (
            ParameterInfo(f"{prefix}.conv.weight", "weight", 9, decays=True),
            ParameterInfo(f"{prefix}.conv.bias", "bias", 3, decays=False),
            ParameterInfo(f"{prefix}.bn.weight", "norm", 3, decays=False),
            ParameterInfo(f"{prefix}.bn.bias", "norm", 3, decays=False),
        ),
    )


MODEL = ModelInfo(
    (
        *(stage(name, f"backbone.{name}") for name in STAGES),
        StageInfo("norm", (ParameterInfo("backbone.norm.weight", "norm", 3, decays=False),)),
        StageInfo(
            "head",
            (
                ParameterInfo("head.linear.weight", "weight", 6, decays=True),
                ParameterInfo("head.linear.bias", "bias", 2, decays=False),
            ),
        ),
    )
)
HEAD = {"head.linear.weight", "head.linear.bias"}
EVERYTHING = {parameter.name for s in MODEL.stages for parameter in s.parameters}
ALL = [Freeze(), Full(), Scratch(), Partial(), Gradual(), Layerwise(), LpFt(), NormOnly(), BitFit()]


def learning_stages(strategy: Strategy, phase: int = 0) -> list[str]:
    learning = strategy.phases(MODEL, max_epochs=10)[phase].learning
    return [s.name for s in MODEL.stages if any(p.name in learning for p in s.parameters)]


def plan(strategy: Strategy, schedule: Schedule | None = None, max_epochs: int = 10) -> RatePlan:
    phases = strategy.phases(MODEL, max_epochs=max_epochs)
    return RatePlan(0.1, phases, optimizer_groups(phases, MODEL), schedule or Schedule())


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("max_epochs", [2, 3, 10, 37])
def test_phases_cover_every_epoch_once_and_name_each_parameter_once(strategy, max_epochs):
    phases = strategy.phases(MODEL, max_epochs=max_epochs)
    check_phases(phases, MODEL, max_epochs=max_epochs)
    assert phases[-1].learning >= HEAD


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: type(s).__name__)
def test_the_optimizer_holds_what_ever_learns_exactly_once(strategy):
    phases = strategy.phases(MODEL, max_epochs=10)
    held = [name for group in optimizer_groups(phases, MODEL) for name in group.parameters]
    assert sorted(held) == sorted(set().union(*(phase.learning for phase in phases)))


def test_freeze_trains_the_head_alone():
    (phase,) = Freeze().phases(MODEL, max_epochs=10)
    assert phase.learning == HEAD
    assert phase.frozen_stages(MODEL) == 5


def test_full_and_scratch_train_everything_and_differ_in_their_weights():
    assert Full().phases(MODEL, max_epochs=10)[0].learning == EVERYTHING
    assert Scratch().phases(MODEL, max_epochs=10)[0].learning == EVERYTHING
    assert (Full().starts_from_random_weights, Scratch().starts_from_random_weights) == (False, True)


def test_weight_decay_spares_biases_and_norms():
    groups = optimizer_groups(Full().phases(MODEL, max_epochs=10), MODEL)
    decayed = {name for group in groups if group.decays for name in group.parameters}
    assert decayed == {*(f"backbone.{name}.conv.weight" for name in STAGES), "head.linear.weight"}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Partial(k=1), ["layer3", "norm", "head"]),
        (Partial(k=2), ["layer2", "layer3", "norm", "head"]),
        (Partial(k=1, where="first"), ["stem", "head"]),
        (Partial(k=2, where="middle"), ["layer1", "layer2", "head"]),
        (Partial(stages=("layer1",)), ["layer1", "head"]),
    ],
)
def test_partial_trains_the_chosen_stages(strategy, expected):
    assert learning_stages(strategy) == expected


@pytest.mark.parametrize("strategy", [Partial(k=0), Partial(k=5), Partial(stages=("layer9",))])
def test_partial_refuses_stages_that_are_not_there(strategy):
    with pytest.raises(ConfigError, match=r"strategy\.(k|stages)="):
        strategy.phases(MODEL, max_epochs=10)


def test_gradual_unfreezes_from_the_head_down_and_ends_with_everything():
    phases = Gradual(lr_decay=0.5).phases(MODEL, max_epochs=10)
    prefixes = [phase.frozen_stages(MODEL) for phase in phases]
    assert prefixes == sorted(prefixes, reverse=True)
    assert phases[0].learning == HEAD
    assert phases[-1].learning == EVERYTHING
    assert phases[-1].start_epoch == 5
    assert {group.name: group.lr_mult for group in phases[-1].groups}["layer3"] == 0.25


def test_gradual_fits_a_deep_network_into_few_epochs():
    phases = Gradual(full_by=1.0).phases(MODEL, max_epochs=3)
    assert [(p.start_epoch, p.end_epoch) for p in phases] == [(0, 1), (1, 2), (2, 3)]
    assert phases[-1].learning == EVERYTHING


def test_layerwise_rates_fall_by_the_decay_from_stage_to_stage():
    rates = dict(
        zip((g.name for g in plan(Layerwise(decay=0.5)).groups), plan(Layerwise(decay=0.5)).rates(0), strict=True)
    )
    assert rates["head"] == pytest.approx(0.1)
    assert rates["layer3"] == pytest.approx(0.1 * 0.5**2)
    assert rates["stem"] == pytest.approx(0.1 * 0.5**5)


@pytest.mark.parametrize("name", ["none", "cosine", "step"])
def test_layerwise_ratios_hold_under_every_schedule(name):
    rates = plan(Layerwise(decay=0.5), Schedule(name, warmup_epochs=1, step_epochs=2))
    for epoch in (0.0, 0.5, 3.25, 9.5):
        by_name = dict(zip((g.name for g in rates.groups), rates.rates(epoch), strict=True))
        assert by_name["layer3"] / by_name["layer1"] == pytest.approx(4.0)


def test_lp_ft_restarts_the_schedule_with_the_second_phase():
    rates = plan(LpFt(probe_epochs=4, finetune_lr_mult=0.1), Schedule("cosine"))
    head = [group.name for group in rates.groups].index("head")
    assert rates.rates(0)[head] == pytest.approx(1.0)
    assert rates.rates(3.999)[head] == pytest.approx(0.0, abs=1e-6)
    assert rates.rates(4)[head] == pytest.approx(0.01)
    assert rates.rates(7)[head] == pytest.approx(0.005)


def test_lp_ft_spaces_the_stages_geometrically():
    phase = LpFt(first_stage_lr_mult=0.01, finetune_lr_mult=0.5).phases(MODEL, max_epochs=10)[1]
    multipliers = [group.lr_mult for group in phase.groups]
    assert multipliers == pytest.approx([0.5 * 0.01 ** (1 - i / 4) for i in range(5)] + [0.5])


@pytest.mark.parametrize("probe", [0, 10, 11])
def test_lp_ft_needs_an_epoch_for_each_phase(probe):
    with pytest.raises(ConfigError, match="probe_epochs"):
        LpFt(probe_epochs=probe).phases(MODEL, max_epochs=10)


def test_norm_only_and_bitfit_choose_by_kind():
    norm = NormOnly().phases(MODEL, max_epochs=10)[0].learning - HEAD
    bias = BitFit().phases(MODEL, max_epochs=10)[0].learning - HEAD
    assert norm == {n for n in EVERYTHING if ".bn." in n or ".norm." in n}
    assert bias == {n for n in EVERYTHING if n.endswith(".bias") and n.startswith("backbone")}


def test_warm_up_rises_linearly_and_cosine_ends_at_the_minimum():
    schedule = Schedule("cosine", warmup_epochs=2, min_factor=0.1)
    assert schedule.factor(1, start=0, end=10) == pytest.approx(0.5)
    assert schedule.factor(2, start=0, end=10) == pytest.approx(1.0)
    assert schedule.factor(6, start=0, end=10) == pytest.approx(0.55)
    assert schedule.factor(10, start=0, end=10) == pytest.approx(0.1)


def test_step_falls_by_gamma():
    schedule = Schedule("step", step_epochs=3, gamma=0.5)
    assert [schedule.factor(e, start=0, end=9) for e in (0, 2.9, 3, 6)] == [1, 1, 0.5, 0.25]
