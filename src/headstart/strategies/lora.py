"""Low-rank adapters beside the layers of a frozen backbone."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from headstart.errors import ConfigError
from headstart.model.description import ModelInfo
from headstart.model.phases import Phase, one_phase, stage_group
from headstart.strategies.contract import RateMultiple, Strategy, Surroundings
from headstart.system.extras import require_extra
from headstart.system.options import Above, AtLeast, Below, Positive

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones.contract import Backbone, Stage
    from headstart.model.transfer_model import TransferModel

Target = Literal["linear", "attention", "conv"]

_ADAPTER = re.compile(r"\.lora_[AB]\.")


@dataclass(frozen=True)
class LoRA(Strategy):
    """Train ``W x + alpha / rank * B A x`` with ``W`` frozen; the head learns as usual.

    ``B`` starts at zero, so training starts exactly at the pretrained function. Checkpoints hold adapters and head
    only; afterwards the adapters are folded into the weights. Layers are chosen by their kind: every linear layer and
    every convolution without groups or dilation that runs in the forward pass through its own ``forward``.

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, eq. 3. For convolutions
    ``A`` is a convolution of the same size to ``rank`` channels and ``B`` a 1x1 convolution.

    Attributes:
        rank: of the adapters.
        alpha: their scale is ``alpha / rank``.
        dropout: probability that an adapter's input is dropped.
        targets: kinds of layers: ``linear``, ``attention`` (linear layers within attention only), ``conv``.
        lr_mult: the head's rate as a multiple of ``optimizer.lr``; see ``strategy=freeze``.
        adapter_lr_mult: the adapters' rate as a multiple of the head's.
    """

    rank: Positive = 8
    alpha: Annotated[float, Above(0)] = 16.0
    dropout: Annotated[float, AtLeast(0), Below(1)] = 0.0
    targets: tuple[Target, ...] = ("linear", "conv")
    lr_mult: RateMultiple = 10.0
    adapter_lr_mult: RateMultiple = 0.2

    def prepare(self, model: "TransferModel", run: Surroundings) -> None:
        """Put an adapter beside every target layer."""
        self.restore(model)

    def restore(self, model: "TransferModel") -> None:
        """As :meth:`prepare`; the adapters' values come from the checkpoint.

        Raises:
            ConfigError: ``peft`` is not installed, or the backbone has no such layers.
        """
        require_extra("strategy=lora", "lora")
        from peft import LoraConfig, inject_adapter_in_model

        backbone = model.backbone
        names = target_layers(backbone, self.targets)
        if not names:
            raise ConfigError(
                f"strategy.targets={list(self.targets)}: {backbone.name} has no such layers; choose linear or conv"
            )
        choice = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules="|".join(re.escape(name) for name in names),
            bias="none",
        )
        inject_adapter_in_model(choice, backbone)
        backbone.stages = tuple(with_adapters(stage, backbone, frozenset(names)) for stage in backbone.stages)

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase in which adapters and head learn."""
        adapters = [
            stage_group(s, lr_mult=self.lr_mult * self.adapter_lr_mult, keep=lambda p: bool(_ADAPTER.search(p.name)))
            for s in model.backbone_stages
        ]
        return one_phase("lora", [*adapters, stage_group(model.head, lr_mult=self.lr_mult)], max_epochs)

    def merge(self, model: "TransferModel") -> None:
        """Fold the adapters into the weights: the backbone has its own layers again."""
        backbone = model.backbone
        layers = [name for name, module in backbone.named_modules() if hasattr(module, "lora_A")]
        for name in layers:
            adapted: Any = backbone.get_submodule(name)
            adapted.merge()
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, adapted.get_base_layer())
        backbone.stages = tuple(without_adapters(stage, layers) for stage in backbone.stages)


def target_layers(backbone: "Backbone", kinds: Iterable[Target]) -> tuple[str, ...]:
    """Names of the layers of these kinds that run in the forward pass, each as a call of its own."""
    import torch

    from headstart.backbones.trace import evaluation_mode

    wanted, attention = set(kinds), set[str]()
    for name, module in backbone.named_modules():
        if "attention" in type(module).__name__.lower():
            attention.update(f"{name}.{inner}" for inner, _ in module.named_modules() if inner)
    candidates = {}
    for name, module in backbone.named_modules():
        own = {"linear", "attention"} if name in attention else {"linear"}
        if (_is_plain_linear(module) and wanted & own) or (_is_plain_conv(module) and "conv" in wanted):
            candidates[name] = module
    called: set[str] = set()
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.add(name)) for name, module in candidates.items()
    ]
    # Some layers' weights are used without calling them; an adapter there would never be seen.
    weight = next(backbone.parameters())
    with torch.no_grad(), evaluation_mode(backbone):
        backbone.forward_features(weight.new_zeros(1, *backbone.input_spec.shape))
    for handle in handles:
        handle.remove()
    return tuple(name for name in candidates if name in called)


def _is_plain_linear(module: "nn.Module") -> bool:
    from torch import nn

    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


def _is_plain_conv(module: "nn.Module") -> bool:
    """Whether an adapter beside the convolution can be folded into its weights: not for groups, nor other padding."""
    from torch import nn

    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
    )


def with_adapters(stage: "Stage", backbone: "nn.Module", layers: frozenset[str]) -> "Stage":
    """The stage after adapters were put beside some of its layers: they are its own."""
    parameters: list[str] = []
    for name in stage.parameters:
        layer, _, leaf = name.rpartition(".")
        parameters.append(f"{layer}.base_layer.{leaf}" if layer in layers else name)
    own = [name for name in stage.modules if name in layers]
    for layer in own:
        names = (f"{layer}.{name}" for name, _ in backbone.get_submodule(layer).named_parameters())
        parameters += [name for name in names if _ADAPTER.search(name)]
    inner = [f"{layer}.{name}" for layer in own for name, _ in backbone.get_submodule(layer).named_modules() if name]
    return replace(stage, parameters=tuple(parameters), modules=(*stage.modules, *inner))


def without_adapters(stage: "Stage", layers: Iterable[str]) -> "Stage":
    """The stage as it was before :func:`with_adapters`."""
    inside = tuple(f"{layer}." for layer in layers)
    parameters = [name.replace(".base_layer.", ".") for name in stage.parameters if not _ADAPTER.search(name)]
    modules = [name for name in stage.modules if not name.startswith(inside)]
    return replace(stage, parameters=tuple(parameters), modules=tuple(modules))
