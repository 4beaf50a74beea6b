"""Frozen means frozen: real Lightning fits, with validation, sanity checks and a resume in between."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from headstart_testing import tiny_run

from headstart.errors import AuditError, DivergedError
from headstart.execution.outcome import count_parameters
from headstart.model.modes import named_state
from headstart.strategies import Freeze, Full, Gradual, LpFt, Partial
from headstart.training import module as module_file
from headstart.training.audit import raise_violations
from headstart.training.rates import Schedule

BACKBONES = {
    "BatchNorm": {"name": "resnet18"},
    "LayerNorm": {"name": "convnext_atto", "pre_logits": "keep"},
    "dropout": {"name": "vit_tiny_patch16_224", "drop_rate": 0.1, "drop_path_rate": 0.2, "proj_drop_rate": 0.1},
}


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named_state(model).items()}


@pytest.mark.parametrize("kind", BACKBONES)
def test_freeze_leaves_every_parameter_and_buffer_of_the_backbone_as_it_was(kind):
    run = tiny_run(Freeze(), backbone=BACKBONES[kind], max_epochs=3, num_sanity_val_steps=1)
    before = snapshot(run.module.model)
    run.fit()
    after = snapshot(run.module.model)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))
    assert all(not torch.equal(before[name], after[name]) for name in before if name.startswith("head."))
    assert run.module.audit.finish()["ok"]


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_frozen_backbone_gives_the_same_features_in_training_as_in_evaluation(kind):
    run = tiny_run(Freeze(), backbone=BACKBONES[kind], max_epochs=1)
    run.fit()
    images = torch.randn(2, 3, 32, 32)
    run.module.train()
    during = run.module.model.features(images)
    run.module.eval()
    assert torch.equal(during, run.module.model.features(images))


def test_without_evaluation_mode_the_audit_fails_the_run(monkeypatch):
    """What the tests above would miss if they could not fail: BatchNorm statistics moving under frozen weights."""
    monkeypatch.setattr(module_file, "apply_modes", lambda model, phase, batchnorm: model.train())
    run = tiny_run(Freeze(), backbone=BACKBONES["BatchNorm"], max_epochs=1)
    before = snapshot(run.module.model)
    run.module.audit.start_phase = _strict(run.module.audit)
    run.fit()
    assert not torch.equal(
        before["backbone.network.bn1.running_mean"], run.module.model.backbone.network.bn1.running_mean
    )
    with pytest.raises(AuditError, match=r"frozen backbone.*running_mean changed"):
        raise_violations(run.module.audit.finish())


def _strict(audit):
    """The audit's own start of a phase, told that no buffer may move."""
    original = type(audit).start_phase

    def start(name, learning):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("headstart.training.audit.moving_buffers", lambda model: frozenset())
            original(audit, name, learning)

    return start


@pytest.mark.parametrize(("strategy", "batchnorm"), [(Freeze(), "train"), (Full(), "eval"), (Full(), "train")])
def test_a_task_stores_the_statistics_that_training_moved(strategy, batchnorm):
    run = tiny_run(strategy, backbone=BACKBONES["BatchNorm"], max_epochs=1, batchnorm=batchnorm)
    before = snapshot(run.module.model)
    run.fit()
    run.module.audit.finish()
    found, after = count_parameters(run.module.audit), snapshot(run.module.model)
    moved = {name for name in before if "running" in name and not torch.equal(before[name], after[name])}
    assert bool(moved) == (strategy == Full() and batchnorm == "train")
    sizes = sum(before[name].numel() for name in moved)
    assert found.get("stored", found["trainable"]) == found["trainable"] + sizes


def test_partial_moves_the_statistics_of_what_learns_and_no_other():
    run = tiny_run(Partial(k=1), backbone=BACKBONES["BatchNorm"], max_epochs=1)
    before = snapshot(run.module.model)
    run.fit()
    after = snapshot(run.module.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "backbone.network.layer4.0.bn1.running_mean" in moved
    assert not any(name.startswith("backbone.network.layer3") for name in moved)


def test_the_optimizer_holds_trainable_parameters_only():
    run = tiny_run(Freeze(), backbone=BACKBONES["BatchNorm"], max_epochs=1)
    run.fit()
    held = {id(p) for group in run.trainer.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in run.module.model.head.parameters()}


def test_a_trainable_parameter_without_gradient_fails_the_audit():
    run = tiny_run(Freeze(), backbone=BACKBONES["BatchNorm"], max_epochs=1)
    run.module.model.head.register_parameter("idle", torch.nn.Parameter(torch.ones(1)))
    run = tiny_run(Freeze(), model=run.module.model, max_epochs=1)
    run.fit()
    with pytest.raises(AuditError, match=r"head\.idle never received a gradient"):
        raise_violations(run.module.audit.finish())


def test_a_moved_frozen_parameter_fails_the_audit():
    run = tiny_run(Freeze(), backbone=BACKBONES["BatchNorm"], max_epochs=1)
    run.fit()
    with torch.no_grad():
        run.module.model.backbone.network.conv1.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(AuditError, match="conv1"):
        raise_violations(run.module.audit.finish())


def test_rates_in_the_optimizer_are_the_stated_ones():
    seen = []

    class Spy(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append((trainer.current_epoch, batch_idx, [g["lr"] for g in trainer.optimizers[0].param_groups]))

    run = tiny_run(LpFt(probe_epochs=1), backbone=BACKBONES["BatchNorm"], max_epochs=3, callbacks=[Spy()])
    run.fit()
    batches = run.trainer.num_training_batches
    assert len(seen) == 3 * batches
    for epoch, batch, rates in seen:
        assert rates == pytest.approx(run.module.plan.rates(epoch + batch / batches))


@pytest.mark.parametrize(
    ("strategy", "stop"),
    [
        pytest.param(Full(), 1, marks=pytest.mark.slow),
        pytest.param(Full(), 2, marks=pytest.mark.slow),
        pytest.param(Gradual(), 1, marks=pytest.mark.slow),
        (Gradual(), 2),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(strategy, stop, tmp_path: Path):
    whole = tiny_run(strategy, backbone=BACKBONES["BatchNorm"], max_epochs=3)
    whole.fit()
    first = tiny_run(strategy, backbone=BACKBONES["BatchNorm"], max_epochs=3, stop_after=stop)
    first.fit()
    first.trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = tiny_run(strategy, backbone=BACKBONES["BatchNorm"], max_epochs=3)
    second.fit(ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    expected, found = snapshot(whole.module.model), snapshot(second.module.model)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert whole.module.audit.finish()["violations"] == second.module.audit.finish()["violations"] == []


def test_a_resumed_run_has_the_rates_that_a_plateau_had_come_to(tmp_path: Path):
    choices = {"max_epochs": 4, "lr": 1e-6, "schedule": Schedule("plateau", patience=0)}
    rates = []
    for stop in (None, 3, None):
        run = tiny_run(Freeze(), backbone=BACKBONES["BatchNorm"], stop_after=stop, **choices)
        run.fit(ckpt_path=tmp_path / "last.ckpt" if len(rates) == 2 else None, weights_only=True)
        run.trainer.save_checkpoint(tmp_path / "last.ckpt")
        rates.append(run.trainer.optimizers[0].param_groups[0]["lr"])
    whole, _, resumed = rates
    assert resumed == whole == pytest.approx(1e-7)


def test_a_checkpoint_leaves_out_what_never_changes(tmp_path: Path):
    run = tiny_run(Freeze(), backbone=BACKBONES["BatchNorm"], max_epochs=1)
    run.fit()
    run.trainer.save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == {"model.head.linear.weight", "model.head.linear.bias"}


def test_the_same_seed_twice_is_bit_identical():
    states = []
    for _ in range(2):
        run = tiny_run(Full(), backbone=BACKBONES["dropout"], max_epochs=2)
        run.fit()
        states.append(snapshot(run.module.model))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_diverging_run_says_so():
    run = tiny_run(Full(), backbone=BACKBONES["BatchNorm"], max_epochs=3, lr=1e30)
    with pytest.raises(DivergedError, match=r"optimizer\.lr=1e\+30"):
        run.fit()
