"""A backbone and a head as one network that can be described to strategies and cut after any stage."""

from torch import Tensor, nn

from headstart.backbones.contract import Backbone, RunningNorm
from headstart.backbones.cut import run_prefix, run_rest
from headstart.model.description import ModelInfo, ParameterInfo, Role, StageInfo


class TransferModel(nn.Module):
    """Images to outputs: ``head(backbone(images))``.

    ``auxiliary`` holds further heads by name that learn along with the head and are no part of the finished model.
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.auxiliary = nn.ModuleDict()

    @property
    def heads(self) -> dict[str, nn.Module]:
        """The head and the auxiliary ones, by their names within the model."""
        return {"head": self.head, **{f"auxiliary.{name}": module for name, module in self.auxiliary.items()}}

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, outputs)``; of a dense head ``(B, outputs, h, w)``."""
        outputs: Tensor = self.head(self.backbone(images))
        return outputs

    def features(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the backbone's features, ``(B, *backbone.features.shape)``."""
        features: Tensor = self.backbone(images)
        return features

    def prefix(self, images: Tensor, stages: int) -> Tensor:
        """``(B, C, H, W)`` to the activations after the first ``stages`` stages, ``(B, ...)``."""
        return run_prefix(self.backbone, images, stages)

    def features_from(self, activations: Tensor, stages: int) -> Tensor:
        """Activations of :meth:`prefix` to features: the rest of the backbone, and nothing of the prefix."""
        return run_rest(self.backbone, activations, stages)

    def describe(self) -> ModelInfo:
        """The model's stages and parameters as strategies see them."""
        roles = _roles(self)
        parameters = dict(self.named_parameters())
        exempt = {f"backbone.{name}" for name in _undecayed(self.backbone)}

        def info(name: str) -> ParameterInfo:
            role = roles[name]
            decays = role == "weight" and parameters[name].ndim > 1 and name not in exempt
            return ParameterInfo(name, role, parameters[name].numel(), decays)

        stages = [
            StageInfo(stage.name, tuple(info(f"backbone.{name}") for name in stage.parameters))
            for stage in self.backbone.stages
        ]
        names = [f"{prefix}.{name}" for prefix, head in self.heads.items() for name, _ in head.named_parameters()]
        return ModelInfo((*stages, StageInfo("head", tuple(info(name) for name in names))))


def is_norm(module: nn.Module) -> bool:
    """Whether ``module`` is a normalisation layer: one of torch's or timm's, by class or by name."""
    bases = (RunningNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
    return isinstance(module, bases) or "norm" in type(module).__name__.lower().removesuffix("act")


def _roles(model: nn.Module) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            role: Role = "norm" if is_norm(module) else "bias" if name.endswith("bias") else "weight"
            roles[f"{prefix}.{name}" if prefix else name] = role
    return roles


def _undecayed(backbone: Backbone) -> set[str]:
    network = getattr(backbone, "network", backbone)
    rule = getattr(network, "no_weight_decay", None)
    prefix = "network." if network is not backbone else ""
    return {f"{prefix}{name}" for name in rule()} if callable(rule) else set()
