"""Cutting a backbone after a stage: a prefix that makes activations, and a rest that goes on from them.

Both run the network's own ``forward_features``. The prefix stops it at the module that ends the stage. The rest
runs it on stand-ins: every module of the prefix returns zeros that take no memory and no time, the ending module
returns the given activations, and from there on all is as usual. Operations between modules (adding position
embeddings, joining tokens) therefore need no special care. A cut is offered only where this was seen to work.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headstart.backbones.contract import Backbone
from headstart.backbones.trace import Call, evaluation_mode, only_tensor, owners, stand_in, trace, with_tensor
from headstart.errors import CacheError

_PLAN = "_cut_plan"
_RTOL, _ATOL = 1e-5, 1e-6


class _Reached(Exception):  # noqa: N818  not an error: it carries the activations out of the forward pass
    def __init__(self, activations: Any) -> None:
        super().__init__()
        self.activations = activations


@dataclass
class _Plan:
    """What a trace says about cuts.

    Attributes:
        stubs: for each number of stages, the outermost modules to replace, with their output; None if there is no cut.
        works: what was found when a cut was tried.
    """

    stubs: dict[int, tuple[Call, ...] | None]
    works: dict[int, bool] = field(default_factory=dict)


def is_cuttable(backbone: Backbone, count: int) -> bool:
    """Whether going on after the first ``count`` stages gives what the whole backbone gives; tried once."""
    if count in {0, len(backbone.stages)}:
        return True
    plan = _plan(backbone)
    if plan.stubs.get(count) is None:
        return False
    if count not in plan.works:
        plan.works[count] = _try(backbone, count)
    return plan.works[count]


def run_prefix(backbone: Backbone, images: Tensor, count: int) -> Tensor:
    """The activations after the first ``count`` stages.

    After none these are the images, after all the features. Modes and gradients are the caller's.

    Raises:
        CacheError: the backbone cannot be cut there.
    """
    if count == 0:
        return images
    if count == len(backbone.stages):
        features: Tensor = backbone(images)
        return features
    end = _end(backbone, count)

    def stop(module: nn.Module, inputs: Any, output: Any) -> None:
        raise _Reached(only_tensor(output))

    handle = backbone.get_submodule(end).register_forward_hook(stop)
    try:
        backbone(images)
    except _Reached as reached:
        activations: Tensor = reached.activations
        return activations
    finally:
        handle.remove()
    raise CacheError(f"{backbone.name}: '{end}' did not run, so there is no cut after stage {count}")


def run_rest(backbone: Backbone, activations: Tensor, count: int) -> Tensor:
    """The features, from activations that :func:`run_prefix` made with the same ``count``.

    Raises:
        CacheError: the backbone cannot be cut there.
    """
    features: Tensor
    if count == 0:
        features = backbone(activations)
        return features
    if count == len(backbone.stages):
        return activations
    end = _end(backbone, count)
    stubs = _plan(backbone).stubs[count]
    assert stubs is not None
    channels, height, width = backbone.input_spec.shape
    images = activations.new_zeros(1).expand(len(activations), channels, height, width)
    with _stubbed(backbone, stubs, end, activations):
        features = backbone(images)
    return features


def _end(backbone: Backbone, count: int) -> str:
    if not 0 < count < len(backbone.stages) or _plan(backbone).stubs.get(count) is None:
        raise CacheError(f"{backbone.name} cannot be cut after {count} of its {len(backbone.stages)} stages")
    end = backbone.stages[count - 1].end
    assert end is not None
    return end


@contextmanager
def _stubbed(backbone: Backbone, stubs: tuple[Call, ...], end: str, activations: Tensor) -> Iterator[None]:
    """Within the block, the prefix's modules return stand-ins until ``end`` has returned the activations."""
    passed = False

    def stub(call: Call, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            nonlocal passed
            if passed:
                return original(*args, **kwargs)
            if call.module == end:
                passed = True
                return with_tensor(call.output, activations)
            return stand_in(call.output, activations)

        return forward

    with ExitStack() as stack:
        for call in stubs:
            module = backbone.get_submodule(call.module)
            own = module.__dict__.get("forward")
            module.forward = stub(call, module.forward)
            stack.callback(_restore, module, own)
        yield


def _restore(module: nn.Module, own: Any) -> None:
    if own is None:
        del module.forward
    else:
        module.forward = own


def _plan(backbone: Backbone) -> _Plan:
    plan: _Plan | None = backbone.__dict__.get(_PLAN)
    if plan is None:
        calls = trace(backbone, lambda model, images: model(images), backbone.input_spec.shape).calls
        plan = _Plan({count: _stubs(backbone, calls, count) for count in range(1, len(backbone.stages))})
        backbone.__dict__[_PLAN] = plan
    return plan


def _stubs(backbone: Backbone, calls: tuple[Call, ...], count: int) -> tuple[Call, ...] | None:
    """The outermost called modules that lie wholly in the first ``count`` stages and depend on the images."""
    end = backbone.stages[count - 1].end
    if end is None:
        return None
    before = {name for stage in backbone.stages[:count] for name in stage.modules}
    later = {name for stage in backbone.stages[count:] for name in stage.modules}
    # A module that holds one of a later stage, or the end, runs as usual; its children of the prefix are replaced.
    around = {owner for name in (*later, end) for owner in owners(name)}
    first: dict[str, Call] = {}
    for call in calls:
        if call.module in before and call.module not in around and call.from_images:
            first.setdefault(call.module, call)
    outermost = tuple(call for name, call in first.items() if not any(owner in first for owner in owners(name)))
    return outermost if any(call.module == end for call in outermost) else None


def _try(backbone: Backbone, count: int) -> bool:
    """Compare going on from activations with the whole, on two random images."""
    parameter = next(backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, *backbone.input_spec.shape), generator=generator).to(parameter.device, parameter.dtype)
    with evaluation_mode(backbone), torch.no_grad():
        whole = backbone(images)
        activations = run_prefix(backbone, images, count)
        if not isinstance(activations, Tensor) or len(activations) != len(images):
            return False
        given = activations.clone()
        try:
            rest = run_rest(backbone, given, count)
        except (RuntimeError, ValueError, TypeError, IndexError):
            return False  # Zeros in place of real values can break a network that looks at them.
    untouched = torch.equal(given, activations)
    scale = float(whole.abs().max())
    return untouched and rest.shape == whole.shape and torch.allclose(rest, whole, rtol=_RTOL, atol=_ATOL * scale)
