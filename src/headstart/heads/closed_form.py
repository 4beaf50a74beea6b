"""Heads that are solved for at once, from the features of all training images: no gradient steps, no learning rate.

Such a head declares :meth:`ClosedForm.solutions`; its YAML has the key ``refit``, by which the configuration knows it.
What is solved for lies in ordinary parameters and buffers, so that a checkpoint holds it as that of any other head.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from headstart.backbones.contract import FeatureSpec
from headstart.errors import ConfigError
from headstart.heads.pool import Pool
from headstart.system.options import Above, checked
from headstart.tasks.contract import Task

PENALTIES: tuple[float, ...] = tuple(float(value) for value in np.logspace(5, -6, 45))
"""The usual path: 45 values from 1e5 down to 1e-6, evenly spaced in their logarithm (Kornblith et al. 2019)."""

# Rows scored at a time: similarities to a large bank take this many times its length.
_ROWS = 1024
# Products of fewer multiplications take longer to share between threads than to do.
_WORTH_THREADS = 10**8
# Directions whose variance is this much smaller than the largest are rounding errors.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Examples:
    """Images as a head sees them.

    Attributes:
        features: ``(N, C)``, pooled.
        targets: ``(N,)`` class numbers, or ``(N, columns)`` labels or numbers.
    """

    features: Tensor
    targets: Tensor

    def plus(self, other: "Examples") -> "Examples":
        """These and others."""
        return Examples(
            torch.cat((self.features, other.features)), torch.cat((self.targets, other.targets.to(self.targets.dtype)))
        )


@dataclass(frozen=True)
class Solution:
    """What came out of :func:`solve`.

    Attributes:
        choice: what was chosen on validation (``l2``, ``k``), or empty.
        value: the one chosen.
        path: for every value in the order tried: itself, its validation metric, and the solver's notes.
        on_train: the head's state from the training images alone, which validation may score.
        final: the head's state to keep; with ``refit``, from training and validation images together.
        images: how many ``final`` was solved from.
        notes: the solver's, on ``final``.
    """

    choice: str
    value: float | None
    path: list[dict[str, Any]]
    on_train: dict[str, Tensor]
    final: dict[str, Tensor]
    images: int
    notes: dict[str, Any] = field(default_factory=dict)

    def record(self, *, refit: bool) -> dict[str, Any]:
        """For ``result.json``."""
        chosen = {"choice": self.choice, "value": self.value, "path": self.path} if self.choice else {}
        return {**chosen, "refit": refit, "images": self.images, **self.notes}


class ClosedForm(nn.Module, ABC):
    """A head that is solved for.

    Args:
        refit: solve again on training and validation images together once the value is chosen; None: yes, where the
            configuration does not say otherwise because only a part of the training images is used.

    Attributes:
        tasks: that it is made for.
        choice: name of what is chosen on validation; empty: nothing is.
    """

    tasks: ClassVar[tuple[str, ...]] = ("binary", "multiclass")
    choice: ClassVar[str] = ""

    def __init__(self, features: FeatureSpec, outputs: int, *, refit: bool | None) -> None:
        super().__init__()
        self.pool = Pool(features)
        self.outputs, self.refit = outputs, refit is not False

    @abstractmethod
    def values(self, images: int) -> Sequence[float | None]:
        """What to try with so many training images, the strongest regularisation first.

        Raises:
            ConfigError: nothing of what was asked for is possible.
        """

    @abstractmethod
    def solutions(self, examples: Examples, task: Task, values: Sequence[float | None]) -> Iterator[dict[str, Any]]:
        """Put the solution for each value in turn into this module; yields the solver's notes on it."""

    @abstractmethod
    def decide(self, vectors: Tensor) -> Tensor:
        """Pooled features ``(B, C)``, at least float32, to ``(B, outputs)``."""

    def forward(self, features: Tensor) -> Tensor:
        """``(B, *features.shape)`` to ``(B, outputs)``, in full precision whatever the backbone's."""
        vectors = self.pool(features)
        with torch.autocast(vectors.device.type, enabled=False):
            return self.decide(vectors if vectors.dtype == torch.float64 else vectors.float())


class LinearClosedForm(ClosedForm):
    """A head in closed form whose solution is one linear layer."""

    def __init__(self, features: FeatureSpec, outputs: int, *, refit: bool | None) -> None:
        super().__init__(features, outputs, refit=refit)
        self.linear = nn.Linear(features.dim, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @property
    def plain_linear(self) -> nn.Linear | None:
        """The layer, where nothing but pooling comes before it."""
        return self.linear

    def decide(self, vectors: Tensor) -> Tensor:
        """See :meth:`ClosedForm.decide`."""
        weight, bias = self.linear.weight.to(vectors.dtype), self.linear.bias.to(vectors.dtype)
        return nn.functional.linear(vectors, weight, bias)

    @torch.no_grad()
    def put(self, weight: Tensor, bias: Tensor) -> None:
        """Set the layer to ``(outputs, C)`` and ``(outputs,)``, or to one row a class of two for a single output."""
        if len(weight) == self.outputs + 1 == 2:  # one sigmoid: the second class against the first
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)


class Penalised(LinearClosedForm):
    """A linear head whose L2 penalty ``l2`` is chosen on validation from a list; None is the usual path of 45."""

    choice = "l2"

    @checked("head")
    def __init__(
        self,
        features: FeatureSpec,
        outputs: int,
        *,
        l2: Annotated[float | Sequence[float] | None, Above(0)] = None,
        refit: bool | None = None,
    ) -> None:
        super().__init__(features, outputs, refit=refit)
        given = PENALTIES if l2 is None else l2 if isinstance(l2, Sequence) else (l2,)
        self.l2 = tuple(sorted({float(value) for value in given}, reverse=True))
        if not self.l2:
            raise ConfigError(f"head.l2={l2} must be numbers above 0: one, or a list such as [0.1,1,10], or null")

    def values(self, images: int) -> Sequence[float | None]:
        """The penalties, largest first."""
        return self.l2


@dataclass(frozen=True)
class Spectrum:
    """Centred features in the directions of their variance, in which penalties are simple.

    Attributes:
        mean: ``(C,)``.
        basis: ``(C, r)`` with orthonormal columns, ``r`` at most the smaller of ``N`` and ``C``.
        scores: ``(N, r)``, the centred features in this basis.
        power: ``(r,)``, sums of the squared scores, largest first.
    """

    mean: Tensor
    basis: Tensor
    scores: Tensor
    power: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Spectrum":
        """Of ``(N, C)``, in float64."""
        values = features.double()
        mean = values.mean(dim=0)
        values = values - mean
        wide = len(values) < values.shape[1]
        power, vectors = torch.linalg.eigh(values @ values.T if wide else values.T @ values)
        power, vectors = power.flip(0), vectors.flip(1)
        kept = power > _SMALLEST * power[0].clamp(min=torch.finfo(power.dtype).tiny)
        power, vectors = power[kept], vectors[:, kept]
        basis = values.T @ vectors / power.sqrt() if wide else vectors
        return cls(mean, basis, values @ basis, power)

    def layer(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """``(K, r)`` and ``(K,)`` on scores, as weight ``(K, C)`` and bias ``(K,)`` on the features as they are."""
        whole = weight @ self.basis.T
        return whole, bias - whole @ self.mean


def solve(head: ClosedForm, train: Examples, val: Examples, task: Task) -> Solution:
    """Solve a head for every value of its path on the training images, choose on validation, solve again if it refits.

    Of values with the same validation metric the first is taken, which is the strongest regularisation.

    Raises:
        ConfigError: the head is not made for this task, or nothing of its path is possible.
    """
    if task.name not in head.tasks:
        raise ConfigError(
            f"this head ({type(head).__name__}) is made for task={' or '.join(head.tasks)}, not for task={task.name}; "
            "use head=ridge or head=linear"
        )
    with threads_for(train.features.numel() * max(head.outputs, 2)):
        return _solve(head, train, val, task)


def _solve(head: ClosedForm, train: Examples, val: Examples, task: Task) -> Solution:
    values = head.values(len(train.targets))
    path: list[dict[str, Any]] = []
    best, found = -float("inf"), 0
    state: dict[str, Tensor] = {}
    for number, notes in enumerate(head.solutions(train, task, values)):
        metric = _metric(head, val, task)
        path.append({head.choice: values[number], task.monitor: metric, **notes})
        score = metric if task.monitor_mode == "max" else -metric
        if not state or score > best:
            best, found, state = max(score, best), number, _state(head)
    value, final, images, notes = values[found], state, len(train.targets), path[found]
    if head.refit:
        both = train.plus(val)
        images = len(both.targets)
        (notes,) = head.solutions(both, task, [value])
        final = _state(head)
    head.load_state_dict(final)
    kept = {key: note for key, note in notes.items() if key not in (head.choice, task.monitor)}
    return Solution(head.choice, value, path if head.choice else [], state, final, images, kept)


@torch.no_grad()
def outputs_of(head: ClosedForm, examples: Examples) -> Tensor:
    """``(N, outputs)`` for all examples, some at a time."""
    return torch.cat([head(part) for part in examples.features.split(_ROWS)])


def best_scale(outputs: Tensor, targets: Tensor, task: Task, offset: Tensor | float = 0.0) -> float:
    """The factor of ``(N, outputs)`` with the lowest loss: scores that only order the classes become logits.

    ``offset`` is added after the factor.
    """

    def loss(exponent: float) -> float:
        return float(task.objective(outputs * 10.0**exponent + offset, targets))

    return float(10.0 ** minimize_scalar(loss, bounds=(-6, 6), method="bounded", options={"xatol": 1e-2}).x)


def _metric(head: ClosedForm, val: Examples, task: Task) -> float:
    outputs = outputs_of(head, val).float().cpu()
    name, targets = task.monitor.removeprefix("val/"), val.targets.cpu()
    quick = task.training_summary(outputs, targets)
    return quick[name] if name in quick else task.evaluate(outputs, targets)[name]


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """One thread for small products, of which there are thousands: threads that wait for each other cost far more.

    Args:
        multiplications: of a usual product.
    """
    if multiplications >= _WORTH_THREADS:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _state(head: ClosedForm) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
