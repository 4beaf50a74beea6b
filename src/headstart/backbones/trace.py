"""What runs, when, during one forward pass: the one source for stage order, stage ends and cuts.

The pass runs on the meta device, where tensors have shapes but no values, so it costs next to nothing whatever
the network's size. Networks that cannot run there run for real, once.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[Any, Tensor], Any]
_Node = Any
"""A step of autograd's graph (``torch.autograd.graph.Node``, which does not tell that leaves have a variable)."""

# Neither 1 nor 2, so that a cut checked with two images notices a shape that does not follow the batch.
_BATCH = 3


@dataclass
class Call:
    """One call of a module.

    Attributes:
        module: its name within the root.
        started: position on the clock that ticks at every start and end of a call.
        ended: likewise; None if the call did not return.
        output: shapes in the structure of the output (:class:`Shape` in place of tensors).
        from_images: whether the output depends on the images.
    """

    module: str
    started: int
    ended: int | None = None
    output: Any = None
    from_images: bool = False


@dataclass(frozen=True)
class Shape:
    """A tensor of a traced output: its shape with the batch of the trace."""

    sizes: tuple[int, ...]

    def zeros(self, like: Tensor) -> Tensor:
        """Zeros of this shape for ``like``'s batch, without the memory for them."""
        sizes = list(self.sizes)
        if sizes and sizes[0] % _BATCH == 0:
            sizes[0] = sizes[0] // _BATCH * len(like)
        return like.new_zeros(1).expand(sizes)


@dataclass(frozen=True)
class Trace:
    """One forward pass.

    Attributes:
        calls: in the order in which they started.
        output: the result's shape without the batch axis; None if the result is not one tensor.
        used: names of the parameters that the result depends on.
    """

    calls: tuple[Call, ...]
    output: tuple[int, ...] | None
    used: frozenset[str] = field(default_factory=frozenset)


def trace(root: nn.Module, forward: Forward, shape: tuple[int, int, int]) -> Trace:
    """Run ``forward(copy of root, images)`` in evaluation mode on images ``(C, H, W)`` and note its modules' calls."""
    try:
        return _run(root, forward, shape, meta=True)
    except Exception:  # networks fail on the meta device in many ways; for real, errors count
        return _run(root, forward, shape, meta=False)


@contextmanager
def evaluation_mode(root: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and back in its own mode afterwards."""
    modes = [(module, module.training) for module in root.modules()]
    root.eval()
    try:
        yield
    finally:
        # Some networks forget what they stored for evaluation only when told to train.
        root.train()
        for module, mode in modes:
            module.training = mode


def _run(root: nn.Module, forward: Forward, shape: tuple[int, int, int], *, meta: bool) -> Trace:
    model = _shell(root, meta=meta)
    parameters = dict(model.named_parameters())
    like = next((p for p in parameters.values() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((_BATCH, *shape), generator=generator).to(like.device, like.dtype).requires_grad_()
    for parameter in parameters.values():
        parameter.requires_grad_(parameter.is_floating_point())
    # What comes of what is in the graph that autograd keeps of one pass.
    with torch.enable_grad(), _followed(model) as calls:
        result = forward(model, images * 1.0)
    known: dict[_Node, bool] = {}
    for node in _nodes(result):
        _follows(node, images, known)
    # So far these are the steps to the result and no others.
    leaves = {id(node.variable) for node in known if hasattr(node, "variable")}
    for call, nodes in calls:
        call.from_images = any(_follows(node, images, known) for node in nodes)
    used = frozenset(name for name, parameter in parameters.items() if id(parameter) in leaves)
    output = tuple(result.shape[1:]) if isinstance(result, Tensor) else None
    return Trace(tuple(call for call, _ in calls), output, used)


def _shell(root: nn.Module, *, meta: bool) -> nn.Module:
    """A copy in evaluation mode, on the meta device without values.

    It is a copy because some networks keep what they calculate, and the real one must not keep tensors without values.
    """
    memo: dict[int, Any] = {}
    if meta:
        for parameter in root.parameters():
            memo[id(parameter)] = nn.Parameter(
                torch.empty_like(parameter, device="meta"), requires_grad=parameter.is_floating_point()
            )
        for buffer in root.buffers():
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(root, memo).eval()


def _nodes(output: Any) -> list[_Node]:
    """The last step of how each tensor was computed; none of one that is no result of anything that learns."""
    return [tensor.grad_fn for tensor in _tensors(output) if tensor.grad_fn is not None]


def _follows(start: _Node, source: Tensor, known: dict[_Node, bool]) -> bool:
    """Whether the steps up to ``start`` begin at ``source``; ``known`` is of all steps seen, these included."""
    waiting = [start]
    while waiting:
        node = waiting[-1]
        before = [earlier for earlier, _ in node.next_functions if earlier is not None]
        new = [] if node in known else [earlier for earlier in before if earlier not in known]
        if not new:
            waiting.pop()
            known.setdefault(node, getattr(node, "variable", None) is source or any(known[one] for one in before))
        waiting.extend(new)
    return known[start]


@contextmanager
def _followed(root: nn.Module) -> Iterator[list[tuple[Call, list[_Node]]]]:
    """Within the block, every call of a module is noted, with the last steps of how its output was computed."""
    calls: list[tuple[Call, list[_Node]]] = []
    open_calls: list[tuple[Call, list[_Node]]] = []
    clock = iter(range(1 << 62))

    def started(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            noted: tuple[Call, list[_Node]] = (Call(name, next(clock)), [])
            calls.append(noted)
            open_calls.append(noted)

        return hook

    def ended(module: nn.Module, inputs: Any, output: Any) -> None:
        call, nodes = open_calls.pop()
        call.ended = next(clock)
        call.output = _map(output, lambda tensor: Shape(tuple(tensor.shape)))
        nodes += _nodes(output)

    handles = []
    for name, module in root.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(started(name)))
            handles.append(module.register_forward_hook(ended))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def stand_in(output: Any, like: Tensor) -> Any:
    """Zeros in the structure of a described output, for ``like``'s batch, type and device."""
    return _map(output, lambda shape: shape.zeros(like))


def only_tensor(output: Any) -> Any:
    """The one tensor (or :class:`Shape`) in an output; None if there are none or several."""
    found = _tensors(output)
    return found[0] if len(found) == 1 else None


def with_tensor(output: Any, tensor: Tensor) -> Any:
    """A described output with ``tensor`` in the place of its one tensor."""
    return _map(output, lambda shape: tensor)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Tensor | Shape):
        return change(value)
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_map(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _tensors(value: Any) -> list[Any]:
    """All tensors (or :class:`Shape`) in an output, however they are wrapped."""
    found: list[Any] = []
    _map(value, found.append)
    return found


def owners(name: str) -> Iterator[str]:
    """Names of the modules around a module, parameter or buffer, from the innermost to the root, which has none."""
    while name:
        name = name.rpartition(".")[0]
        yield name
