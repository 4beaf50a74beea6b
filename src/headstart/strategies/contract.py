"""The strategy contract: which parameters learn, when, how fast, and in which mode the others run.

A strategy is a small frozen dataclass. From a description of the model, which needs no torch, it returns an
ordered list of phases; everything it decides is a pure function of the phase. Optional hooks, no-ops here, serve
the methods that need more, above all :meth:`Strategy.prepare`, :meth:`Strategy.losses` and
:meth:`Strategy.finish`. Nothing else in the package knows which strategy runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from headstart.model.description import ModelInfo
from headstart.model.phases import Phase
from headstart.system.options import Above, AtLeast

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from headstart.data.datamodule import ImageDataModule
    from headstart.data.input_spec import InputSpec
    from headstart.model.transfer_model import TransferModel
    from headstart.tasks import Task


RateMultiple = Annotated[float, Above(0)]
"""A rate as a multiple of another one."""
Strength = Annotated[float, AtLeast(0)]
"""Of a term of the loss."""


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
    """What a run offers its strategy besides the model.

    Attributes:
        task: of the run.
        data: of the run, prepared and configured.
        device: for passes over data before training.
        runs: of :attr:`Strategy.references`, by name.
        tasks: of ``sources``, by name.
    """

    task: Task
    data: ImageDataModule
    device: torch.device
    runs: Mapping[str, OtherRun] = field(default_factory=dict)
    tasks: Mapping[str, OtherTask] = field(default_factory=dict)


@dataclass(frozen=True)
class Extras:
    """What a strategy adds to one training. Whatever it remembers lives in these, never in the strategy.

    Attributes:
        losses: added to the task's own, by name.
        scores: further metrics: each takes ``val`` or ``test`` and is logged as ``<name>/<split>/<metric>``.
        finish: as :meth:`Strategy.finish`.
    """

    losses: Mapping[str, Callable[[Step], Tensor]] = field(default_factory=dict)
    scores: Mapping[str, Callable[[str], Mapping[str, float]]] = field(default_factory=dict)
    finish: Callable[[TransferModel, Callable[[], float]], dict[str, Any]] = lambda model, evaluate: {}


@dataclass(frozen=True)
class Strategy:
    """Base of every strategy. A subclass must give :meth:`phases`; the rest has defaults.

    The hooks are called in this order: :meth:`prepare`, :meth:`phases` and :meth:`start` before training,
    :meth:`merge` and the ``finish`` that :meth:`start` gave after it; of a plan, the first two. A finished run is
    rebuilt by :meth:`restore` and :meth:`merge`. A strategy itself never changes: what one hook has to remember for
    a later one, :meth:`start` puts into what it returns.

    Rules that decide which choices go together ask these attributes, before anything is built; a subclass sets what
    is true of it (``only_head_learns = True``), or computes it as a property.

    Attributes:
        only_head_learns: all of the head learns in every phase, nothing else does, and by the task's own loss alone,
            so that a head may be solved for on the features, or trained on them together with others.
        starts_from_random_weights: the backbone does not get its weights.
        averages_weights: the model that is tested is an average over the training, its start included.
        one_class_only: makes sense only where each image has one class.
        trains_other_tasks: takes part of its batches from ``sources``.
        usual_batchnorm: what ``batchnorm=auto`` is.
    """

    only_head_learns: ClassVar[bool] = False
    starts_from_random_weights: ClassVar[bool] = False
    averages_weights: ClassVar[bool] = False
    one_class_only: ClassVar[bool] = False
    trains_other_tasks: ClassVar[bool] = False
    usual_batchnorm: ClassVar[Literal["train", "eval", "affine"]] = "train"

    @property
    def references(self) -> Mapping[str, str]:
        """Directories of other runs that this one needs, by the names of the fields that give them."""
        return {}

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """The phases in order, without gaps, from epoch 0 to ``max_epochs``.

        Raises:
            ConfigError: the choices do not fit this model or this number of epochs.
        """
        raise NotImplementedError

    def prepare(self, model: TransferModel, run: Surroundings) -> None:
        """Change the model's shape before anything is described (adapters, auxiliary heads).

        Modules in ``model.auxiliary`` learn with the head, and are no part of the finished model.
        """

    def start(self, model: TransferModel, run: Surroundings) -> Extras:
        """Called once, on the model as training finds it: extra losses and metrics, and what comes after training.

        Overridden where these need the run or must remember something; else :meth:`losses`, :meth:`scores` and
        :meth:`finish` are enough.
        """
        return Extras(self.losses(model), self.scores(model), self.finish)

    def losses(self, model: TransferModel) -> Mapping[str, Callable[[Step], Tensor]]:
        """Named extra losses that need only the model; see :class:`Extras`."""
        return {}

    def scores(self, model: TransferModel) -> Mapping[str, Callable[[str], Mapping[str, float]]]:
        """Further named metrics that need only the model; see :class:`Extras`."""
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
