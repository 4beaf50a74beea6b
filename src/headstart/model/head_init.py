"""Weights for a linear head that already fit, before training: ``head_init``."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from headstart.backbones.contract import Backbone
from headstart.data.datamodule import ImageDataModule
from headstart.errors import ConfigError
from headstart.heads.linear import Linear
from headstart.heads.ncm import mean_layer
from headstart.model.features import pooled_features
from headstart.model.transfer_model import TransferModel

# Scales tried for the logits of class means; features' own scale differs by orders of magnitude between networks.
_SCALES = torch.logspace(-4, 4, 49, dtype=torch.float64)


def initialise_head(model: TransferModel, how: str, data: ImageDataModule, device: torch.device) -> None:
    """Give a linear head weights that already fit: from one pass over the training images, or those of the source.

    Args:
        model: its head is :class:`~headstart.heads.Linear`.
        how: ``class_means``, ``probe``, or ``source``.
        data: configured.
        device: for the pass.

    Raises:
        ConfigError: the head is not a single linear layer, or the source has no rows for the classes.
    """
    head = model.head
    if not isinstance(head, Linear):
        raise ConfigError(
            f"head_init={how} sets the weights of one linear layer, and this head has others; use head=linear"
        )
    if how == "source":
        weight, bias = source_rows(model.backbone, data.classes)
    else:
        features, targets = pooled_features(model.backbone, data, "train", device)
        solve: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] = class_means if how == "class_means" else probe
        weight, bias = solve(features, targets, len(data.classes))
    if head.linear.out_features == 1:  # one sigmoid output: the second class against the first
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    with torch.no_grad():
        head.linear.weight.copy_(weight)
        head.linear.bias.copy_(bias)


def source_rows(backbone: Backbone, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The rows of the source classifier that belong to these classes, by name.

    Returns: weight ``(classes, C)`` and bias ``(classes,)``.

    Raises:
        ConfigError: the weights bring no classifier, or it does not know all the classes.
    """
    classifier, known = backbone.source_classifier, list(backbone.weights.classes)
    if classifier is None or not known:
        raise ConfigError(
            f"head_init=source needs the source's classifier and the names of its classes, and "
            f"backbone.weights={backbone.weights.source} brings none; use head_init=class_means or probe"
        )
    missing = [name for name in classes if name not in known]
    if missing:
        raise ConfigError(
            f"head_init=source: {len(missing)} of {len(classes)} classes are not among the source's {len(known)} "
            f"(such as '{missing[0]}'; the source knows '{known[0]}', …); use head_init=class_means or probe"
        )
    rows = torch.tensor([known.index(name) for name in classes])
    return classifier.weight[rows].float(), classifier.bias[rows].float()


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
