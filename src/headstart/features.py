"""Passes over a whole split without training: pooled features, and what can be learned from them in closed form."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from headstart.backbones.contract import Backbone
from headstart.data.datamodule import ImageDataModule
from headstart.errors import ConfigError
from headstart.heads.linear import Linear
from headstart.heads.ncm import mean_layer
from headstart.heads.pool import Pool
from headstart.model import TransferModel

# Scales tried for the logits of class means; features' own scale differs by orders of magnitude between networks.
_SCALES = torch.logspace(-4, 4, 49, dtype=torch.float64)


def batches(data: ImageDataModule, split: str) -> DataLoader:
    """All images of a split in their own order, as evaluation sees them."""
    return DataLoader(data.dataset(split), batch_size=data.eval_batch_size, num_workers=0)


@torch.no_grad()
def pooled_features(
    backbone: Backbone, data: ImageDataModule, split: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pooled features ``(N, C)`` float32 and class numbers ``(N,)`` of a split, on the CPU.

    The backbone is in evaluation mode for the pass, and afterwards where and as it was.
    """
    pool = Pool(backbone.features)
    modes = {module: module.training for module in backbone.modules()}
    home = next(backbone.parameters()).device
    features, targets = [], []
    backbone.to(device).eval()
    for batch in batches(data, split):
        features.append(pool(backbone.forward_features(batch["images"].to(device))).float().cpu())
        targets.append(batch["targets"])
    backbone.to(home)
    for module, mode in modes.items():
        module.training = mode
    return torch.cat(features), torch.cat(targets)


def initialise_head(model: TransferModel, how: str, data: ImageDataModule, device: torch.device) -> None:
    """Give a linear head weights that already fit the training images, from one pass over them.

    Args:
        model: its head is :class:`~headstart.heads.Linear`.
        how: ``class_means`` or ``probe``.
        data: configured.
        device: for the pass.

    Raises:
        ConfigError: the head is not a single linear layer.
    """
    head = model.head
    if not isinstance(head, Linear):
        raise ConfigError(
            f"head_init={how} sets the weights of one linear layer, and this head has others; use head=linear"
        )
    features, targets = pooled_features(model.backbone, data, "train", device)
    solve: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] = class_means if how == "class_means" else probe
    weight, bias = solve(features, targets, len(data.classes))
    if head.linear.out_features == 1:  # one sigmoid output: the second class against the first
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    with torch.no_grad():
        head.linear.weight.copy_(weight)
        head.linear.bias.copy_(bias)


def class_means(features: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The nearest-class-mean classifier as a linear layer, at the scale of the lowest cross-entropy.

    Reference: Qi et al., "Low-Shot Learning with Imprinted Weights", CVPR 2018, for unnormalised features.

    Args:
        features: ``(N, C)``.
        targets: ``(N,)``.
        classes: each must occur.

    Returns: weight ``(classes, C)`` and bias ``(classes,)``.
    """
    values = features.double()
    weight, bias = mean_layer(values, targets, classes)
    logits = values @ weight.T + bias
    losses = [torch.nn.functional.cross_entropy(scale * logits, targets) for scale in _SCALES]
    scale = _SCALES[int(torch.stack(losses).argmin())]
    return (scale * weight).float(), (scale * bias).float()


def probe(features: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Logistic regression on standardised features, as a layer on the features as they are.

    Args:
        features: ``(N, C)``.
        targets: ``(N,)``.
        classes: each must occur.

    Returns: weight ``(classes, C)`` and bias ``(classes,)``.
    """
    from sklearn.linear_model import LogisticRegression

    values = features.double().numpy()
    mean, std = values.mean(axis=0), values.std(axis=0)
    std[std < 1e-12] = 1.0
    found = LogisticRegression(max_iter=2000).fit((values - mean) / std, targets.numpy())
    coefficients, intercept = found.coef_, found.intercept_
    if classes == 2:
        coefficients, intercept = np.vstack([0 * coefficients, coefficients]), np.append([0.0], intercept)
    weight = coefficients / std
    return torch.from_numpy(weight).float(), torch.from_numpy(intercept - weight @ mean).float()
