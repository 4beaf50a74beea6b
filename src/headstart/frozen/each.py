"""Running a head for many jobs at once, with the bits that each job would have had alone.

``vmap`` turns a head into one for a stack of weights. Most operations give an element the same value whether they see
one job or many. Matrix products do not: a batched product rounds its sums differently, and in 16 bits a flipped
rounding is as large as 1/256 of the value. Nor does anything random. Those run job by job within the mapped head, on
the very shapes, and from the very random state, of a single run; the rest is done for all jobs in one operation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

_PRODUCTS = frozenset(
    {
        F.linear,
        F.bilinear,
        F.conv1d,
        F.conv2d,
        F.conv3d,
        torch.addmm,
        torch.bmm,
        torch.matmul,
        torch.mm,
        Tensor.__matmul__,
        Tensor.bmm,
        Tensor.matmul,
        Tensor.mm,
    }
)
_RANDOM = frozenset({F.alpha_dropout, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.feature_alpha_dropout})


class JobByJob(TorchFunctionMode):
    """Within it, a ``vmap`` over jobs does products and dropout one job at a time.

    Args:
        device: of the tensors.
        seeds: torch's seed for each job, as a single run sets it before the batch; empty where nothing is random.
    """

    def __init__(self, device: torch.device, seeds: Sequence[int] = ()) -> None:
        super().__init__()
        self._device = device
        self._seeds = seeds
        self._states: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Products and dropout one by one, everything else as it is."""
        kwargs = kwargs or {}
        if func in _PRODUCTS:
            return _each(func, args, kwargs, self._autocast_type())
        if func in _RANDOM and _drops(args, kwargs):
            return _each(self._seeded(func), args, kwargs)
        return func(*args, **kwargs)

    def _autocast_type(self) -> torch.dtype | None:
        kind = self._device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

    def _seeded(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """``func`` from each job's own random state; the jobs come in their order."""
        jobs = iter(range(len(self._seeds)))

        def run(*args: Any, **kwargs: Any) -> Any:
            job = next(jobs)
            if job in self._states:
                self._restore(self._states[job])
            else:
                torch.manual_seed(self._seeds[job])
            out = func(*args, **kwargs)
            self._states[job] = self._state()
            return out

        return run

    def _state(self) -> Tensor:
        return torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else torch.get_rng_state()

    def _restore(self, state: Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)


class _Each(torch.autograd.Function):
    """A function of tensors that ``vmap`` maps by calling it once a job; autograd sees the single calls."""

    @staticmethod
    def forward(func: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Outside of ``vmap``, or where nothing differs from job to job."""
        return func(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing: the mapped calls are recorded as they are."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], func: Callable[..., Tensor], *tensors: Tensor) -> Any:
        """Call by call, then stack."""
        parts = [
            [tensor] * info.batch_size if dim is None else tensor.unbind(dim)
            for tensor, dim in zip(tensors, in_dims[1:], strict=True)
        ]
        return torch.stack([func(*one) for one in zip(*parts, strict=True)]), 0


def _each(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], cast: torch.dtype | None = None
) -> Any:
    """``func(*args, **kwargs)`` with its tensors taken job by job, cast for all jobs at once."""
    places: list[int | str] = [place for place, value in enumerate(args) if isinstance(value, Tensor)]
    places += [name for name, value in kwargs.items() if isinstance(value, Tensor)]

    def call(*tensors: Tensor) -> Any:
        positional, named = list(args), dict(kwargs)
        for place, tensor in zip(places, tensors, strict=True):
            if isinstance(place, int):
                positional[place] = tensor
            else:
                named[place] = tensor
        return func(*positional, **named)

    given = [args[place] if isinstance(place, int) else kwargs[place] for place in places]
    if cast is not None:
        given = [tensor.to(cast) if _is_castable(tensor) else tensor for tensor in given]
    return _Each.apply(call, *given)


def _is_castable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float64


def _drops(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a dropout function, called as torch's own layers call it, drops anything."""
    probability = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    return bool(training) and probability > 0
