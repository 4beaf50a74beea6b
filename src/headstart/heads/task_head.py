"""A head of another task, with the statistics that a shared backbone's BatchNorm layers have on its images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from headstart.backbones.contract import RunningNorm


class TaskHead(nn.Module):
    """A head, and running statistics of the backbone's BatchNorm layers that belong to its task.

    Training normalises each task's batch by that batch. Running averages over several tasks would be the statistics of
    none of them, and evaluation would see other activations than training did; weights are shared, statistics are not.

    Reference: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016.

    Args:
        head: from features to the task's outputs.
        backbone: whose present statistics are the start.
    """

    def __init__(self, head: nn.Module, backbone: nn.Module) -> None:
        super().__init__()
        self.head = head
        for own, module, name in _statistics(backbone):
            self.register_buffer(own, getattr(module, name).detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        """The backbone's features, ``(B, ...)``, to ``(B, outputs)``."""
        outputs: Tensor = self.head(features)
        return outputs

    @contextmanager
    def statistics_in(self, backbone: nn.Module) -> Iterator[None]:
        """Within the block, the backbone normalises by this task's statistics, and moves these where it trains."""
        replaced: list[tuple[Any, str, Tensor]] = []
        try:
            # Another tensor, not other values: what a backward pass still needs must not be written to.
            for own, module, name in list(_statistics(backbone)):
                replaced.append((module, name, getattr(module, name)))
                setattr(module, name, getattr(self, own))
            yield
        finally:
            for module, name, tensor in replaced:
                setattr(module, name, tensor)


def _statistics(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for path, module in backbone.named_modules():
        if isinstance(module, RunningNorm):
            for name, _ in module.named_buffers(recurse=False):
                yield f"{path}.{name}".replace(".", "_"), module, name
