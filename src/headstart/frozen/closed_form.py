"""A head in closed form: one pass over the images of each split, then the solution; no optimizer and no gradients."""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from rich.progress import track
from torch import Tensor

from headstart.config.settings import RunSettings
from headstart.errors import ConfigError
from headstart.heads import ClosedForm
from headstart.heads.closed_form import Examples, Solution, outputs_of, solve
from headstart.model.description import ModelInfo
from headstart.model.phases import one_phase, stage_group
from headstart.model.transfer_model import TransferModel
from headstart.store.activations import CachedData
from headstart.strategies.contract import Strategy
from headstart.strategies.modifiers import own_phases
from headstart.system.console import get_console
from headstart.tasks import Task
from headstart.tasks.predictions import EpochOutputs, Predictions
from headstart.training.audit import Audit
from headstart.training.rates import RatePlan, Schedule, optimizer_groups

PHASE = "closed form"


def closed_form_plan(info: ModelInfo) -> RatePlan:
    """One epoch in which the head is solved for; no parameter has a learning rate."""
    phases = one_phase(PHASE, [stage_group(info.head, lr_mult=0.0)], 1)
    return RatePlan(0.0, phases, optimizer_groups(phases, info), Schedule())


def check_closed_form(settings: RunSettings, strategy: Strategy, info: ModelInfo) -> None:
    """What the configuration cannot know of a user's own head or strategy.

    Raises:
        ConfigError: the strategy trains more than the head, or the YAML does not say that the head is in closed form.
    """
    if "refit" not in settings.head.arguments:
        raise ConfigError("this head is in closed form, which its YAML must say with the key refit: true or false")
    if not strategy.only_head_learns:
        raise ConfigError("this head is solved for on frozen features; use strategy=freeze with it")
    own_phases(strategy, info, max_epochs=settings.trainer.max_epochs)


@dataclass(frozen=True)
class SolvedHead:
    """What came of solving for a head.

    Attributes:
        solution: what was chosen; the model's head holds the one to keep.
        metrics: on training and validation images of what was solved for on the training images alone.
        val: the answers that ``metrics`` scores.
        images_seen: of the training split.
    """

    solution: Solution
    metrics: dict[str, float]
    val: Predictions
    images_seen: int


def solve_head(
    model: TransferModel, task: Task, audit: Audit, loaders: CachedData, *, progress: bool = False
) -> SolvedHead:
    """Solve for a model's head on the training images, choose on validation.

    Where the head is solved for again on both (``refit``), that is what the model holds, the checkpoint keeps and the
    test sees; validation scores what has not seen its images.

    Args:
        model: whose head is a :class:`~headstart.heads.ClosedForm`, in the modes of its phase; it is put on the
            trainer's device.
        task: loss, metrics and probabilities.
        audit: started.
        loaders: with a trainer, whose device, precision and limits count.
        progress: show how far it is.
    """
    trainer, head = loaders.trainer, model.head
    assert trainer is not None
    assert isinstance(head, ClosedForm)
    trainer.precision_plugin.convert_module(model).to(trainer.strategy.root_device)
    if loaders.channels_last:
        model.to(memory_format=torch.channels_last)
    audit.start_phase(PHASE, audit.ever_learning)
    (train, _), (val, index) = (collect(model, loaders, split, progress=progress) for split in ("train", "val"))
    place = train.features.device
    head.to(place)
    solution = solve(head, train, val, task)
    audit.see_solution()
    head.load_state_dict(solution.on_train)
    outputs, targets = outputs_of(head, train).float().cpu(), train.targets.cpu()
    metrics = {"train/loss": float(task.loss(outputs, targets))}
    metrics |= {f"train/{name}": value for name, value in task.training_summary(outputs, targets).items()}
    predictions = answers(head, val, index, task)
    metrics |= {f"val/{name}": value for name, value in predictions.metrics.items()}
    head.load_state_dict(solution.final)
    audit.end_phase()
    return SolvedHead(solution, metrics, predictions, len(targets))


def answers(head: ClosedForm, examples: Examples, index: Tensor, task: Task) -> Predictions:
    """What a solved head says of examples at these positions of their split."""
    outputs = EpochOutputs()
    outputs.add(outputs_of(head, examples), examples.targets, index)
    return outputs.gather(task)


@torch.no_grad()
def collect(
    model: TransferModel, loaders: CachedData, split: str, *, progress: bool = False
) -> tuple[Examples, Tensor]:
    """The pooled features of a split and their positions there, in the split's order, each image once."""
    trainer, head, seen = loaders.trainer, model.head, EpochOutputs()
    assert trainer is not None
    assert isinstance(head, ClosedForm)
    device, precision = trainer.strategy.root_device, trainer.precision_plugin
    batches = loaders.batches(split)
    limit: int | float = getattr(trainer, f"limit_{split}_batches")
    count = min(limit, len(batches)) if isinstance(limit, int) else int(limit * len(batches))
    taken = islice(batches, count)
    for batch in track(taken, split, count, console=get_console(), transient=True, disable=not progress):
        given = precision.convert_input(move_data_to_device(batch, device))
        with precision.forward_context():
            if "activations" in given:
                features = model.features_from(given["activations"], int(given["stages"]))
            else:
                layout = torch.channels_last if loaders.channels_last else torch.contiguous_format
                features = model.features(given["images"].contiguous(memory_format=layout))
            seen.add(head.pool(features), given["targets"], given["index"])
    # Double precision is for the solution, and Apple's GPUs do not have it.
    place = torch.device("cpu") if device.type == "mps" else device
    index, features = seen.index.all().cpu(), seen.outputs.all().to(place)
    order = torch.from_numpy(np.unique(index.numpy(), return_index=True)[1])
    features = features if features.dtype == torch.float64 else features.float()
    return Examples(features[order.to(place)], seen.targets.all().to(place)[order.to(place)]), index[order]
