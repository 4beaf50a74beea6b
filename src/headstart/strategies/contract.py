"""The strategy contract: which parameters learn, when, how fast, and in which mode the others run.

A strategy is a small frozen dataclass. From a description of the model, which needs no torch, it returns an
ordered list of phases; everything it decides is a pure function of the phase. Optional hooks, no-ops here, serve
the methods that need more, above all :meth:`Strategy.prepare`, :meth:`Strategy.losses` and
:meth:`Strategy.finish`. Nothing else in the package knows which strategy runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from headstart.data.datamodule import ImageDataModule
    from headstart.data.input_spec import InputSpec
    from headstart.model import TransferModel
    from headstart.tasks import Task

Role = Literal["weight", "bias", "norm"]


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter as a strategy sees it.

    Attributes:
        name: full name within the model (``backbone.layer1.0.conv1.weight``, ``head.linear.bias``).
        role: ``norm`` for every parameter of a normalisation layer, ``bias`` for other biases, else ``weight``.
        size: number of elements.
        decays: whether weight decay applies (not to biases, norms, and other vectors such as class tokens).
    """

    name: str
    role: Role
    size: int
    decays: bool


@dataclass(frozen=True)
class StageInfo:
    """One stage of the model: a stage of the backbone, or ``head`` last."""

    name: str
    parameters: tuple[ParameterInfo, ...]


@dataclass(frozen=True)
class ModelInfo:
    """The model as a strategy sees it: its stages from input to output. The last one is the head."""

    stages: tuple[StageInfo, ...]

    @property
    def backbone_stages(self) -> tuple[StageInfo, ...]:
        """All stages but the head."""
        return self.stages[:-1]

    @property
    def head(self) -> StageInfo:
        """The head."""
        return self.stages[-1]


@dataclass(frozen=True)
class Group:
    """Named parameters that learn at one rate.

    Attributes:
        name: unique within the phase; as a rule the stage's name.
        parameters: full parameter names.
        lr_mult: the group's rate is ``optimizer.lr`` times the schedule's factor times this.
        decays: False where a penalty of the strategy's own takes the place of weight decay.
    """

    name: str
    parameters: tuple[str, ...]
    lr_mult: float = 1.0
    decays: bool = True


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs in which one set of parameters learns.

    Attributes:
        name: for tables and plots.
        start_epoch: the first epoch.
        end_epoch: the epoch after the last one.
        groups: what learns; a parameter in no group is frozen.
        needs_images: why this phase cannot run on stored activations, or None where it can.
        restarts_schedule: the learning-rate schedule starts over with this phase and ends with it.
    """

    name: str
    start_epoch: int
    end_epoch: int
    groups: tuple[Group, ...]
    needs_images: str | None = None
    restarts_schedule: bool = False

    @property
    def learning(self) -> frozenset[str]:
        """Names of all parameters that learn in this phase."""
        return frozenset(name for group in self.groups for name in group.parameters)

    def frozen_stages(self, model: ModelInfo) -> int:
        """Length of the frozen prefix: how many backbone stages, from the input on, hold nothing that learns."""
        learning = self.learning
        for count, stage in enumerate(model.backbone_stages):
            if any(parameter.name in learning for parameter in stage.parameters):
                return count
        return len(model.backbone_stages)


@dataclass(frozen=True)
class Step:
    """What a named extra loss may look at in one training step.

    Attributes:
        images: ``(B, C, H, W)``, or the stored activations ``(B, ...)`` where the phase runs on those.
        targets: ``(B,)`` class numbers, or ``(B, classes)`` shares where images are mixed.
        features: the backbone's features, ``(B, ...)``.
        outputs: the head's outputs, ``(B, outputs)``.
        epoch: counted from 0.
        batch_index: of this batch within the epoch, counted from 0.
    """

    images: Tensor
    targets: Tensor
    features: Tensor
    outputs: Tensor
    epoch: int
    batch_index: int = 0


@dataclass(frozen=True)
class OtherRun:
    """The outcome of another run, for a strategy that refers to it.

    Attributes:
        model: in evaluation mode, its parameters frozen.
        classes: what its outputs stand for.
        input_spec: what its images must be.
    """

    model: nn.Module
    classes: tuple[str, ...]
    input_spec: InputSpec


@dataclass(frozen=True)
class OtherTask:
    """Another task that a strategy may train along.

    Attributes:
        data: prepared, and configured for the run's backbone.
        task: over the classes of ``data``.
        head: from the run's features to the task's outputs, freshly initialised.
    """

    data: ImageDataModule
    task: Task
    head: nn.Module


@dataclass(frozen=True)
class Surroundings:
    """What a run offers its strategy besides model, task and data.

    Attributes:
        device: for passes over data before training.
        runs: of :attr:`Strategy.references`, by name.
        tasks: of ``sources``, by name.
    """

    device: torch.device
    runs: Mapping[str, OtherRun] = field(default_factory=dict)
    tasks: Mapping[str, OtherTask] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """Base of every strategy. A subclass must give :meth:`phases`; the rest has defaults.

    The hooks are called in this order: :meth:`connect`, :meth:`prepare`, :meth:`phases`, :meth:`losses` and
    :meth:`scores` before training, :meth:`merge` and :meth:`finish` after it. A finished run is rebuilt by
    :meth:`restore` and :meth:`merge`.

    Attributes:
        held: what the hooks hand on to each other; never part of the configuration or of checkpoints.
    """

    held: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def weights(self) -> Literal["pretrained", "none"]:
        """Whether the backbone starts from its weights; ``none`` only for training from scratch."""
        return "pretrained"

    @property
    def references(self) -> Mapping[str, str]:
        """Directories of other runs that this one needs, by a name of the strategy's own."""
        return {}

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """The phases in order, without gaps, from epoch 0 to ``max_epochs``.

        Raises:
            ConfigError: the choices do not fit this model or this number of epochs.
        """
        raise NotImplementedError

    def connect(self, surroundings: Surroundings) -> None:
        """Receive what the run offers; kept as ``held["surroundings"]``."""
        self.held["surroundings"] = surroundings

    @property
    def surroundings(self) -> Surroundings:
        """What :meth:`connect` received."""
        received: Surroundings = self.held["surroundings"]
        return received

    def prepare(self, model: TransferModel, task: Any, data: Any) -> None:
        """Change the model's shape before anything is described (adapters, auxiliary heads).

        Modules in ``model.auxiliary`` learn with the head, and are no part of the finished model.
        """

    def losses(self, model: TransferModel) -> Mapping[str, Callable[[Step], Tensor]]:
        """Named extra losses, added to the task's own; called once, before training."""
        return {}

    def scores(self, model: TransferModel) -> Mapping[str, Callable[[str], Mapping[str, float]]]:
        """Further named metrics: each takes ``val`` or ``test`` and is logged as ``<name>/<split>/<metric>``."""
        return {}

    def restore(self, model: TransferModel) -> None:
        """Give a rebuilt model the shape that it had when a finished run saved it; needs neither task nor data."""

    def merge(self, model: TransferModel) -> None:
        """Turn a trained or restored model into a plain one with the same outputs (adapters folded into weights)."""

    def finish(self, model: TransferModel, evaluate: Callable[[], float]) -> dict[str, Any]:
        """Change the trained model's weights before it is tested; ``evaluate`` scores validation (more is better).

        Returns: what was chosen, for ``result.json``; not empty if any weight was changed.
        """
        return {}


def stage_group(
    stage: StageInfo,
    *,
    lr_mult: float = 1.0,
    decays: bool = True,
    keep: Callable[[ParameterInfo], bool] | None = None,
) -> Group:
    """All of a stage's parameters, or those that ``keep`` accepts, as one group named like the stage."""
    return Group(stage.name, tuple(p.name for p in stage.parameters if keep is None or keep(p)), lr_mult, decays)


def one_phase(
    name: str, groups: Iterable[Group], max_epochs: int, *, needs_images: str | None = None
) -> tuple[Phase, ...]:
    """One phase over the whole training, without empty groups."""
    return (Phase(name, 0, max_epochs, tuple(g for g in groups if g.parameters), needs_images=needs_images),)
