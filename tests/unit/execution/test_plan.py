"""What ``plan=true`` says about rates and memory."""

import pytest
import torch

from headstart.backbones import TimmBackbone
from headstart.execution.assemble import Prepared
from headstart.execution.plan import estimate_step, optimizer_state, rate_table, shown_epochs
from headstart.heads import Linear
from headstart.model.transfer_model import TransferModel
from headstart.strategies import Freeze, Full, Gradual, LpFt, Strategy
from headstart.training.assemble import ever_learning
from headstart.training.audit import Audit
from headstart.training.rates import RatePlan, Schedule, optimizer_groups
from headstart.weights.sources import NO_WEIGHTS


@pytest.fixture(scope="module")
def model() -> TransferModel:
    backbone = TimmBackbone(name="resnet18", weights=NO_WEIGHTS, image_size=(32, 32), layers=[1, 1, 1, 1])
    return TransferModel(backbone, Linear(backbone.features, 3))


def plan(model: TransferModel, strategy: Strategy, epochs: int = 10) -> RatePlan:
    info = model.describe()
    phases = strategy.phases(info, max_epochs=epochs)
    return RatePlan(0.1, phases, optimizer_groups(phases, info), Schedule())


def memory(model: TransferModel, strategy: Strategy, **changes: object) -> object:
    choices = {"batch_size": 4, "shape": (3, 32, 32), "state_per_element": 2.0, "precision": "32-true"}
    made = plan(model, strategy)
    prepared = Prepared(made, Audit(model, model.describe(), ever_learning(made)), "train")
    return estimate_step(prepared, 0, **choices | changes)


def test_the_optimizers_state_is_measured():
    assert optimizer_state(torch.optim.AdamW) == 2.0
    assert optimizer_state(lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9)) == 1.0
    assert optimizer_state(lambda groups: torch.optim.SGD(groups, lr=0.1)) == 0.0


def test_memory_counts_what_learns(model):
    full, frozen = memory(model, Full()), memory(model, Freeze())
    parameters = sum(p.numel() for p in model.parameters())
    assert full.gradients == 4 * parameters
    assert full.optimizer == 8 * parameters
    assert frozen.gradients == 4 * sum(p.numel() for p in model.head.parameters())
    assert frozen.parameters == full.parameters >= 4 * parameters
    assert frozen.activations < full.activations / 100


def test_memory_of_activations_grows_with_the_batch_and_halves_with_the_precision(model):
    full = memory(model, Full())
    assert memory(model, Full(), batch_size=8).activations == pytest.approx(2 * full.activations)
    assert memory(model, Full(), precision="bf16-mixed").activations == pytest.approx(full.activations / 2, rel=1e-3)


def test_the_first_convolutions_kept_input_is_among_the_activations(model):
    """A lower bound from arithmetic: each of 4 images, the stem's output, and the activations before each pooling."""
    stem_output = 64 * 16 * 16 * 4
    assert memory(model, Full()).activations >= 4 * (3 * 32 * 32 * 4 + 2 * stem_output)


@pytest.mark.parametrize("epochs", [2, 5, 10, 100])
@pytest.mark.parametrize("strategy", [Full(), LpFt(), Gradual()], ids=["full", "lp_ft", "gradual"])
def test_a_handful_of_epochs_with_the_first_and_the_last_is_shown(model, strategy, epochs):
    phases = strategy.phases(model.describe(), max_epochs=epochs)
    shown = shown_epochs(phases)
    assert shown[0] == 0
    assert shown[-1] == epochs - 1
    assert len(shown) == len(set(shown)) <= 7
    if len(phases) <= 6:
        assert {phase.start_epoch for phase in phases} <= set(shown)


def test_the_rates_shown_are_those_of_the_plan(model):
    table = rate_table(plan(model, LpFt(probe_epochs=5, probe_lr_mult=1.0, finetune_lr_mult=0.1, backbone_lr_mult=0.5)))
    cells = {row[0]: row[1:] for row in zip(*(column._cells for column in table.columns), strict=True)}
    epochs = [int(str(column.header)) for column in list(table.columns)[1:]]
    assert cells["head"][epochs.index(1)] == "0.1"
    assert cells["head"][epochs.index(6)] == "0.01"
    backbone = next(values for name, values in cells.items() if name != "head")
    assert backbone[epochs.index(1)] == "-"
    assert backbone[epochs.index(6)] == "0.005"
