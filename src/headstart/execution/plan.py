"""What a run would do, without training and without a run directory: ``plan=true``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from headstart.config import ResolvedRun, RunSettings
from headstart.config.settings import TrainerSettings
from headstart.data.datamodule import ImageDataModule
from headstart.execution.assemble import Prepared, prepare_strategy
from headstart.execution.batches import batch_counts, check_batches
from headstart.execution.execute import prepare_model
from headstart.execution.summary import views_notice
from headstart.heads import ClosedForm
from headstart.model.modes import apply_gradients
from headstart.model.phases import Phase
from headstart.model.transfer_model import TransferModel
from headstart.store.decide import views_in_turn
from headstart.system.console import show
from headstart.training.audit import audit_table
from headstart.training.quiet import quiet_lightning
from headstart.training.rates import RatePlan
from headstart.weights.report import weights_notice

_PROBE_IMAGES = 2
_COLUMNS = 7
# Of a number in single precision.
_BYTES = 4


class StepBytes(NamedTuple):
    """Estimated bytes on the device in one training step of a phase.

    Attributes:
        parameters: weights and buffers.
        gradients: of what learns in the phase.
        optimizer: its state for everything that ever learns.
        activations: kept by the forward pass of one batch for the backward pass.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        key: of the run.
        rates: phases, parameter groups and learning rates.
        said: what :meth:`show` prints: text and tables.
    """

    key: str
    rates: RatePlan = field(repr=False)
    said: tuple[RenderableType, ...] = field(repr=False)

    def show(self) -> None:
        """Print it."""
        for part in self.said:
            show(part)


def plan_run(resolved: ResolvedRun) -> Plan:
    """What learns, how fast, and what it takes; nothing is trained and no run directory is made.

    Raises:
        HeadstartError: the data, the weights or the strategy's choices cannot be used; training would fail alike.
    """
    quiet_lightning()
    settings = resolved.settings
    strategy, surroundings, model = prepare_model(resolved)
    data = surroundings.data
    prepared = prepare_strategy(settings, strategy, model)
    check_batches(settings.trainer, data, prepared)
    plan = prepared.plan
    said: list[RenderableType] = [
        f"Plan of {resolved.key} (nothing is trained)",
        weights_notice(model.backbone.weights),
        _images(settings.trainer, data, plan),
    ]
    frozen = [phase for phase in plan.phases if phase.frozen_stages(prepared.audit.info)]
    if settings.cache.views and data.augmentation.random and frozen:
        epochs = sum(phase.end_epoch - phase.start_epoch for phase in frozen)
        said.append(
            views_notice(
                views_in_turn(settings.cache, plan.phases, data.steps_per_epoch),
                images=data.sizes["train"],
                epochs=epochs,
            )
        )
    for index, phase in enumerate(plan.phases):
        title = f"{phase.name}, epochs {phase.start_epoch + 1} to {phase.end_epoch}"
        said.append(audit_table(prepared.show_phase(index), title=title))
    if isinstance(model.head, ClosedForm):
        said.append("The head is solved for in closed form, after one pass over the images: there are no steps.")
    else:
        said += [rate_table(plan), _memory_table(settings, prepared, data)]
    return Plan(resolved.key, plan, tuple(said))


def rate_table(plan: RatePlan) -> Table:
    """The effective learning rate of each group at the start of some epochs, those where phases start among them."""
    epochs = shown_epochs(plan.phases)
    table = Table(box=None, title="learning rate at the start of epoch", title_justify="left", pad_edge=False)
    table.add_column("group", no_wrap=True)
    for epoch in epochs:
        table.add_column(str(epoch + 1), justify="right", no_wrap=True)
    shown: dict[tuple[str, ...], list[str]] = {}
    rates = [plan.rates(epoch) for epoch in epochs]
    for number, group in enumerate(plan.groups):
        values = tuple(f"{at[number]:.3g}" if at[number] else "-" for at in rates)
        name = group.name.removesuffix("/no_decay")
        if name not in shown.setdefault(values, []):
            shown[values].append(name)
    for values, names in shown.items():
        table.add_row(names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}", *values)
    if plan.schedule.name == "plateau":
        table.caption = "less after epochs without a better validation metric"
    return table


def shown_epochs(phases: tuple[Phase, ...]) -> list[int]:
    """Up to a handful of epochs: where phases start, evenly spaced others, the last one."""
    last = phases[-1].end_epoch - 1
    starts = [phase.start_epoch for phase in phases]
    if len(starts) > _COLUMNS - 1:
        starts = [starts[round(i * (len(starts) - 1) / (_COLUMNS - 2))] for i in range(_COLUMNS - 1)]
    chosen = {*starts, last}
    evenly = [round(i * last / (_COLUMNS - 1)) for i in range(_COLUMNS)]
    for epoch in evenly:
        if len(chosen) < _COLUMNS:
            chosen.add(epoch)
    return sorted(chosen)


def estimate_step(
    prepared: Prepared,
    index: int,
    *,
    batch_size: int,
    shape: tuple[int, int, int],
    state_per_element: float,
    precision: str,
) -> StepBytes:
    """Bytes that one training step of a phase takes; what libraries and the allocator take comes on top.

    Args:
        prepared: its model is put into the phase's modes.
        index: of the phase.
        batch_size: images a step and process.
        shape: ``(C, H, W)``.
        state_per_element: numbers that the optimizer keeps for each one that learns.
        precision: of the trainer; halves what a forward pass keeps if it is a half one.
    """
    model, learning = prepared.model, prepared.plan.phases[index].learning
    apply_gradients(model, learning)
    prepared.show_phase(index)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    kept = 0.5 if precision in ("16-mixed", "bf16-mixed") else 1.0
    return StepBytes(
        parameters=_BYTES * (sum(sizes.values()) + sum(buffer.numel() for buffer in model.buffers())),
        gradients=_BYTES * sum(sizes[name] for name in learning),
        optimizer=int(_BYTES * state_per_element * sum(sizes[name] for name in prepared.audit.ever_learning)),
        activations=int(_kept_by_forward(model, shape) / _PROBE_IMAGES * batch_size * kept),
    )


def _kept_by_forward(model: TransferModel, shape: tuple[int, int, int]) -> int:
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(_PROBE_IMAGES, *shape)
    # The graph is held until the sum is made, or freed storages would be counted once for several tensors.
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = model(images)
    total = sum(kept.values())
    del outputs
    return total


def optimizer_state(optimizer: Any) -> float:
    """Numbers that an optimizer keeps for each one that learns, from a step on a small parameter.

    Args:
        optimizer: takes torch parameter groups.
    """
    probe = nn.Parameter(torch.ones(8, 8))
    made = optimizer([{"params": [probe]}])
    probe.grad = torch.ones_like(probe)
    made.step()
    state: Mapping[str, Any] = made.state[probe]
    return sum(v.numel() for v in state.values() if isinstance(v, Tensor) and v.ndim > 0) / probe.numel()


def _images(trainer: TrainerSettings, data: ImageDataModule, plan: RatePlan) -> str:
    steps, epochs = batch_counts(trainer, data)["train"], plan.phases[-1].end_epoch
    train = data.sizes["train"] if data.steps_per_epoch is None else steps * data.batch_size
    others = ", ".join(f"{count} to {split}" for split, count in data.sizes.items() if split != "train")
    return (
        f"{train} images an epoch in {steps} steps of up to {data.batch_size}; {epochs} epochs: "
        f"{epochs * train} images, {epochs * steps} steps; {others}"
    )


def _memory_table(settings: RunSettings, prepared: Prepared, data: ImageDataModule) -> RenderableType:
    per_element = optimizer_state(settings.optimizer.partial())
    assert data.spec is not None
    table = Table(box=None, title="estimated memory of a training step, MiB", title_justify="left", pad_edge=False)
    table.add_column("phase", no_wrap=True)
    for name in (*StepBytes._fields, "total"):
        table.add_column(name, justify="right", no_wrap=True)
    try:
        for index, phase in enumerate(prepared.plan.phases):
            parts = estimate_step(
                prepared,
                index,
                batch_size=data.batch_size,
                shape=data.spec.shape,
                state_per_element=per_element,
                precision=settings.trainer.precision,
            )
            table.add_row(phase.name, *(f"{part / 2**20:,.0f}" for part in (*parts, sum(parts))))
    except (RuntimeError, ValueError) as error:
        return Text(f"Memory cannot be estimated: {error}")
    return table
