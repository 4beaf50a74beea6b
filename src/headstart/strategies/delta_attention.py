"""Which channels of the source network the target task needs, for :class:`~headstart.strategies.delta.Delta`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from headstart.backbones.contract import Backbone
    from headstart.data.datamodule import ImageDataModule


def channel_attention(backbone: "Backbone", data: "ImageDataModule", device: "torch.device") -> "dict[str, Tensor]":
    """Weights ``(C,)`` of mean 1 for the channels at each stage's end, from one pass over the training images.

    The classifier is a linear probe on the backbone's features; see :class:`~headstart.strategies.delta.Delta`.
    """
    import torch
    from torch.nn import functional as F  # noqa: N812

    from headstart.heads.pool import Pool
    from headstart.model.features import batches, pooled_features
    from headstart.model.head_init import standardised_probe
    from headstart.strategies.delta import frozen_copy, record

    features, targets = pooled_features(backbone, data, "train", device)
    weight, bias = (tensor.to(device) for tensor in standardised_probe(features, targets, len(data.classes)))
    source, pool = frozen_copy(backbone).to(device), Pool(backbone.features)
    maps: dict[str, Tensor] = {}
    record(source, tuple(stage.end for stage in source.stages if stage.end is not None), maps)
    axis = -1 if backbone.features.layout == "NHWC" else 1
    growth: dict[str, Tensor] = {}
    for batch in batches(data, "train"):
        with torch.enable_grad():
            images = batch["images"].to(device).requires_grad_(True)
            outputs = F.linear(pool(source.forward_features(images)).float(), weight, bias)
            loss = F.cross_entropy(outputs, batch["targets"].to(device), reduction="sum")
            gradients = torch.autograd.grad(loss, list(maps.values()), allow_unused=True)
        for name, gradient in zip(maps, gradients, strict=True):
            if gradient is not None:
                silenced = silencing(maps[name].detach(), gradient, axis=axis)
                growth[name] = growth.get(name, torch.zeros_like(silenced)) + silenced
        maps.clear()
    return {name: len(total) * torch.softmax(total / len(targets), dim=0).cpu() for name, total in growth.items()}


def silencing(maps: "Tensor", gradient: "Tensor", *, axis: int) -> "Tensor":
    """How much the loss grows, to first order, when each channel of ``maps`` is set to 0; ``(C,)``."""
    growth = -(maps * gradient).float()
    return growth.movedim(axis if growth.ndim == 4 else -1, -1).flatten(0, -2).sum(dim=0)
