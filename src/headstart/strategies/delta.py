"""Keep what the network sees near what the source network sees."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headstart.strategies.contract import Extras, Step, Strength, Surroundings
from headstart.strategies.full import Full
from headstart.strategies.l2sp import head_norm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from headstart.backbones.contract import Backbone
    from headstart.model.transfer_model import TransferModel


@dataclass(frozen=True)
class Delta(Full):
    """Fine-tune everything under DELTA's penalty on feature maps, which takes the place of weight decay.

    A frozen copy of the source network sees the same batch. With ``F_j`` the feature map of channel ``j`` at the end
    of a stage and ``F0_j`` the copy's, the extra loss is
    ``alpha / 2 * sum over stages and channels of W_j * mean over positions of (F_j - F0_j)^2``, mean over the batch.
    Each stage's ``W`` have mean 1: all equal (``attention=none``), or larger for the channels that the target task
    needs (``attention=loss``): the softmax over channels of how much the loss of a linear classifier on the source
    network's features grows when the channel is silenced. The paper silences each filter in turn and measures; here
    the growth is taken to first order, ``-dL/dF_j * F_j``, which needs one pass over the training images instead of
    one a filter. The head has an L2 penalty, ``beta / 2 * ||w_H||^2``.

    Stages whose end is no single tensor are left out.

    The authors' code (lixingjian/DELTA, train.py) compares the outputs of the last convolution of each ResNet stage
    before its normalisation, with the same weights of mean 1 and mean over positions under attention, but sums over
    the batch: with a batch of ``B`` its ``alpha`` is ``alpha / B`` here. Without attention it sums over positions too.

    Reference: Li et al., "DELTA: Deep Learning Transfer using Feature Map with Attention for Convolutional
    Networks", ICLR 2019, eq. 3, 5 and 6.

    Attributes:
        alpha: strength of the penalty on feature maps.
        beta: strength of the L2 penalty on the head.
        attention: weights of the channels; ``loss`` needs one pass over the training images.
    """

    decays = False
    needs_images = "strategy=delta shows each image to the source network too"
    alpha: Strength = 0.01
    beta: Strength = 0.01
    attention: Literal["none", "loss"] = "none"

    @property
    def one_class_only(self) -> bool:  # type: ignore[override]  # of its class only where no field decides it
        """What a channel is worth is asked of a classifier."""
        return self.attention == "loss"

    def start(self, model: "TransferModel", run: Surroundings) -> Extras:
        """Copy the source network, for the losses ``delta`` and ``l2`` of the head."""
        weights: dict[str, Tensor] = {}
        if self.attention == "loss":
            from headstart.strategies.delta_attention import channel_attention

            weights = channel_attention(model.backbone, run.data, run.device)
        penalty = FeatureMapPenalty(model.backbone, self.alpha, weights)
        return Extras({"delta": penalty, "l2": head_norm(model, self.beta)})


class FeatureMapPenalty:
    """See :class:`Delta`; compares the ends of stages of a backbone with those of a copy made now."""

    def __init__(self, backbone: "Backbone", alpha: float, weights: "Mapping[str, Tensor] | None" = None) -> None:
        self.alpha = alpha
        self.weights = dict(weights or {})
        self.source = frozen_copy(backbone)
        self.channel_axis = 1 if backbone.features.layout != "NHWC" else -1
        self.ends = tuple(stage.end for stage in backbone.stages if stage.end is not None)
        self.seen: dict[str, Tensor] = {}
        self.wanted: dict[str, Tensor] = {}
        record(backbone, self.ends, self.seen)
        record(self.source, self.ends, self.wanted)

    def __call__(self, step: Step) -> "Tensor":
        """The penalty for the batch that the backbone has just seen; a scalar."""
        import torch

        self.source.to(step.outputs.device)
        with torch.no_grad():
            self.source.forward_features(step.images)
        total = step.outputs.new_zeros(())
        for end in self.ends:
            if end in self.seen and end in self.wanted:
                total = total + map_distance(
                    self.seen[end], self.wanted[end], self.weights.get(end), axis=self.channel_axis
                )
        self.seen.clear()
        self.wanted.clear()
        return self.alpha / 2 * total


def map_distance(maps: "Tensor", wanted: "Tensor", weights: "Tensor | None" = None, *, axis: int = 1) -> "Tensor":
    """Sum over channels of the weighted mean over positions of the squared difference, mean over the batch.

    The maps are ``(B, C, H, W)``, ``(B, H, W, C)``, ``(B, L, C)`` or ``(B, C)``; ``axis`` is that of the channels where
    there are four, ``weights`` is ``(C,)``.
    """
    squares = (maps.float() - wanted.float()).square()
    by_channel = squares.movedim(axis if squares.ndim == 4 else -1, -1).flatten(0, -2).mean(dim=0)
    if weights is not None:
        by_channel = by_channel * weights.to(by_channel.device)
    return by_channel.sum()


def record(backbone: "Backbone", ends: tuple[str, ...], into: "dict[str, Tensor]") -> None:
    """Let every training pass leave the outputs of the named modules in ``into``."""
    import torch

    def keep(name: str, *, always: bool) -> "Callable[[nn.Module, object, object], None]":
        def hook(module: "nn.Module", inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and (always or torch.is_grad_enabled()):
                into[name] = output

        return hook

    always = not any(parameter.requires_grad for parameter in backbone.parameters())
    for name in ends:
        backbone.get_submodule(name).register_forward_hook(keep(name, always=always))


def frozen_copy(backbone: "Backbone") -> "Backbone":
    """A copy that never learns, in evaluation mode."""
    duplicate = copy.deepcopy(backbone).eval()
    return duplicate.requires_grad_(False)
