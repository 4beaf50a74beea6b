"""What a phase means for the model: which parameters require gradients, and which modules are in which mode.

``requires_grad_(False)`` alone leaves BatchNorm collecting statistics and dropout dropping, so a frozen module
is also put into evaluation mode. Both are pure functions of the phase; the module applies them again whenever
Lightning has touched them.
"""

from typing import Literal

from torch import Tensor, nn

from headstart.backbones.contract import RunningNorm
from headstart.model.phases import Phase
from headstart.model.transfer_model import TransferModel, is_norm

BatchNormMode = Literal["train", "eval", "affine"]


def apply_gradients(model: TransferModel, learning: frozenset[str]) -> None:
    """Let exactly the parameters in ``learning`` require gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning)


def apply_modes(model: TransferModel, phase: Phase, *, batchnorm: BatchNormMode = "train") -> None:
    """Put what learns into training mode and everything else into evaluation mode.

    A stage trains if any of its parameters learns; within it, a normalisation layer none of whose parameters
    learns stays in evaluation mode, so that its statistics do not move. ``batchnorm="eval"`` and ``"affine"`` keep all
    running statistics of the backbone.
    """
    learning = phase.learning
    # Some networks drop what they cached for evaluation in their own train(), which setting flags would not call.
    model.train()
    for module in model.modules():
        module.training = False
    model.training = True
    for head in model.heads.values():
        head.train()
    backbone = model.backbone
    modules = dict(backbone.named_modules())
    for stage in backbone.stages:
        if not any(f"backbone.{name}" in learning for name in stage.parameters):
            continue
        for name in stage.modules:
            modules[name].training = not _kept(modules[name], f"backbone.{name}", learning, batchnorm)


def batchnorm_parameters(model: TransferModel) -> frozenset[str]:
    """Names of the scales and shifts of the backbone's BatchNorm layers."""
    return frozenset(
        f"backbone.{path}.{name}"
        for path, module in model.backbone.named_modules()
        if isinstance(module, RunningNorm)
        for name, _ in module.named_parameters(recurse=False)
    )


def moving_buffers(model: TransferModel) -> frozenset[str]:
    """Names of the buffers that may change in the present modes: those of modules in training mode."""
    return frozenset(
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if prefix and module.training
        for name, _ in module.named_buffers(recurse=False)
    )


def named_state(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, those included that a state dict would leave out."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _kept(module: nn.Module, path: str, learning: frozenset[str], batchnorm: BatchNormMode) -> bool:
    if not is_norm(module):
        return False
    if batchnorm != "train" and isinstance(module, RunningNorm):
        return True
    own = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
    return bool(own) and not any(name in learning for name in own)
