"""Weights for a linear head that already fit, before training: ``head_init``."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from headstart.backbones.contract import Backbone, FeatureSpec
from headstart.backbones.trace import evaluation_mode
from headstart.data.datamodule import ImageDataModule
from headstart.errors import ConfigError
from headstart.heads.closed_form import Examples, best_scale, outputs_of
from headstart.heads.logreg import LogisticRegression
from headstart.heads.ncm import mean_layer
from headstart.model.features import pooled_features
from headstart.model.transfer_model import TransferModel
from headstart.tasks.contract import Task

_log = logging.getLogger(__name__)

# Scales tried for the logits of class means; features' own scale differs by orders of magnitude between networks.
_SCALES = torch.logspace(-4, 4, 49, dtype=torch.float64)
# Penalties in a row that do not lower the loss on validation, before the path ends.
_PATIENCE = 8
# A head that must be less sure than this to be no worse than guessing knows nothing of training's features.
_LEAST_SCALE = 0.1


def initialise_head(model: TransferModel, how: str, data: ImageDataModule, task: Task, device: torch.device) -> None:
    """Give a linear head weights that already fit: from one pass over the training images, or those of the source.

    Raises:
        ConfigError: the head is not a single linear layer, or the source has no rows for the classes.
    """
    layer: nn.Linear | None = getattr(model.head, "plain_linear", None)
    if layer is None:
        raise ConfigError(
            f"head_init={how} sets the weights of one linear layer, and this head has others; use head=linear"
        )
    if how == "source":
        weight, bias = source_rows(model.backbone, data.classes)
    else:
        train = Examples(*pooled_features(model.backbone, data, "train", device))
        if how == "class_means":
            weight, bias = class_means(train.features, train.targets, len(data.classes))
        else:
            val = Examples(*pooled_features(model.backbone, data, "val", device))
            weight, bias = probe(train, val, len(data.classes), task)
    if layer.out_features == 1:  # one sigmoid output: the second class against the first
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def source_rows(backbone: Backbone, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The rows of the source classifier that belong to these classes, by name.

    Returns: weight ``(classes, C)`` and bias ``(classes,)``.

    Raises:
        ConfigError: the weights bring no classifier, or it does not know all the classes, or two by one name.
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
    if repeated := next((name for name in classes if known.count(name) > 1), None):
        raise ConfigError(
            f"head_init=source: {known.count(repeated)} of the source's classes are called '{repeated}', and which one "
            "is meant here nobody can tell; leave that class out (datamodule.classes), or use head_init=class_means or "
            "probe"
        )
    rows = torch.tensor([known.index(name) for name in classes])
    return classifier.weight[rows].float(), classifier.bias[rows].float()


def class_means(features: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The nearest-class-mean classifier as a linear layer, at the scale of the lowest cross-entropy.

    Reference: Qi et al., "Low-Shot Learning with Imprinted Weights", CVPR 2018, for unnormalised features.

    Returns: weight ``(classes, C)`` and bias ``(classes,)``.
    """
    values = features.double()
    weight, bias = mean_layer(values, targets, classes)
    logits = values @ weight.T + bias
    losses = [torch.nn.functional.cross_entropy(scale * logits, targets) for scale in _SCALES]
    scale = _SCALES[int(torch.stack(losses).argmin())]
    return (scale * weight).float(), (scale * bias).float()


def probe(train: Examples, val: Examples, classes: int, task: Task) -> tuple[Tensor, Tensor]:
    """Logistic regression on the features as they are, at the L2 penalty with the lowest loss on validation.

    No feature is divided by its own deviation: one that is almost always 0 would get a weight thousands of times too
    large, and training, which moves that feature a little, would begin with a huge loss.

    Returns: weight ``(classes, C)`` and bias ``(classes,)``.
    """
    width = train.features.shape[1]
    head = LogisticRegression(FeatureSpec(width, (width,), "NC"), classes)
    lowest, found, since = math.inf, head.state_dict(), 0
    for _ in head.solutions(train, task, head.l2):
        loss = float(functional.cross_entropy(outputs_of(head, val), val.targets))
        since += 1
        if loss < lowest:
            lowest, found, since = loss, {name: tensor.clone() for name, tensor in head.state_dict().items()}, 0
        elif since == _PATIENCE:  # weaker penalties only overfit more, and take the longest
            break
    return found["linear.weight"], found["linear.bias"]


def calibrate(model: TransferModel, data: ImageDataModule, task: Task, device: torch.device) -> None:
    """Make a fitted linear head as confident as it is right in the modes in which training starts.

    The head was fitted on features of evaluation mode; with the statistics of a batch, or dropout, they are others, and
    outputs that were sure become sure mistakes. Both modes' outputs are ``scale * (W x + b)``; the scale is at most 1.

    The model comes in the modes of training; its running statistics are left as they were.

    Raises:
        ConfigError: even a tenth of the confidence leaves more than twice the loss of guessing.
    """
    if not any(module.training for module in model.backbone.modules()):
        return
    buffers = {name: tensor.clone() for name, tensor in model.named_buffers()}
    home = next(model.parameters()).device
    dataset = data.dataset("train")
    # In a batch of one class, as images lie on the disk, statistics are not those of training.
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    size = min(data.batch_size, len(order))
    whole = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    outputs, targets, alike = [], [], False
    model.to(device)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for batch in DataLoader(dataset, batch_sampler=whole):
            images = batch["images"].to(device)
            outputs.append(model(images).float().cpu())
            targets.append(batch["targets"])
            if len(outputs) == 1:
                with evaluation_mode(model):
                    alike = torch.equal(model(images).float().cpu(), outputs[0])
                if alike:  # as with batchnorm=eval and no dropout: the head was fitted in these very modes
                    break
        model.to(home)
        for name, tensor in model.named_buffers():
            tensor.copy_(buffers[name])
        if alike:
            return
        scores, wanted = torch.cat(outputs), torch.cat(targets)
        scale = min(1.0, max(_LEAST_SCALE, best_scale(scores, wanted, task)))
        before, loss, guessing = (float(task.objective(factor * scores, wanted)) for factor in (1.0, scale, 0.0))
        if not loss <= 2 * guessing:
            raise ConfigError(
                f"head_init=probe: with batches of {size}, as in training, the fitted head's loss is {before:.2f}, and "
                f"{loss:.2f} at {scale:.2g} of its confidence, where guessing has {guessing:.2f}; use batchnorm=eval, "
                "a larger datamodule.batch_size, or strategy=lp_ft, which trains the head first"
            )
        for parameter in model.head.parameters():
            parameter.mul_(scale)
    _log.info("head_init=probe: loss in training mode %.3f, %.3f at %.2f of the confidence", before, loss, scale)


def standardised_probe(features: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Logistic regression on standardised features, as a layer on the features as they are; to look at, not to train.

    Returns: weight ``(classes, C)`` and bias ``(classes,)``.
    """
    from sklearn.linear_model import LogisticRegression

    values = features.double().numpy()
    mean, std = values.mean(axis=0), values.std(axis=0)
    std[std < 1e-12] = 1.0
    found = LogisticRegression(max_iter=2000).fit((values - mean) / std, targets.numpy())
    present, coefficients, intercept = found.classes_, found.coef_, found.intercept_
    if len(present) == 2:
        coefficients, intercept = np.vstack([0 * coefficients, coefficients]), np.append([0.0], intercept)
    # A class without images is never the answer.
    weight, bias = np.zeros((classes, values.shape[1])), np.full(classes, -1e4)
    weight[present] = coefficients / std
    bias[present] = intercept - weight[present] @ mean
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
