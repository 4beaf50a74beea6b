"""From a task's name and the data's targets to the task."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.errors import ConfigError, DataError
from headstart.tasks.classification import Binary, Multiclass
from headstart.tasks.contract import Task
from headstart.tasks.multilabel import Multilabel
from headstart.tasks.regression import Regression
from headstart.tasks.segmentation import Segmentation

ClassWeights = Literal["none", "balanced"] | Sequence[float]

_NAMES = ("auto", "binary", "multiclass", "multilabel", "regression", "segmentation")


def build_task(
    name: str,
    classes: Sequence[str],
    *,
    label_smoothing: float = 0.0,
    class_weights: ClassWeights = "none",
    train_targets: ArrayLike | None = None,
    record: Mapping[str, Any] | None = None,
) -> Task:
    """The task for named classes (or quantities); ``auto`` is multiclass, two classes included.

    Args:
        name: of the task.
        classes: names, in the order of their numbers or columns.
        label_smoothing: see :class:`Classification`.
        class_weights: ``none``, ``balanced`` (inversely to how often a class occurs in training), or a number each.
        train_targets: of the training split: class numbers ``(N,)``, or ``(N, classes)``; of masks the classes' shares.
        record: what :meth:`Task.record` gave of the task of a finished run.

    Raises:
        ConfigError: the choices do not fit each other or the classes.
        DataError: the data are of another task, or there are too few classes.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ConfigError(f"loss.label_smoothing={label_smoothing} is not in [0, 1)")
    if name not in _NAMES:
        raise ConfigError(f"task={name} is not one of {', '.join(_NAMES)}")
    targets = None if train_targets is None else np.asarray(train_targets)
    if name == "regression":
        for key, value, idle in (("label_smoothing", label_smoothing, 0.0), ("class_weights", class_weights, "none")):
            if value != idle:
                raise ConfigError(f"loss.{key}={value} has no meaning with task=regression; leave it out")
        return Regression(classes, train_targets=targets, record=record)
    if name == "segmentation":
        weights = _weights(class_weights, len(classes), targets, shares=True)
        return Segmentation(classes, label_smoothing=label_smoothing, class_weights=weights)
    if targets is not None and (targets.ndim == 2) != (name == "multilabel"):
        have = "several labels or numbers an image" if targets.ndim == 2 else "one class an image"
        raise DataError(f"task={name} does not fit: the data have {have}; choose task by what is to be predicted")
    if name == "multilabel":
        weights = _weights(class_weights, len(classes), targets)
        return _restored(Multilabel(classes, label_smoothing=label_smoothing, positive_weights=weights), record)
    if len(classes) < 2:
        raise DataError(f"the data has {len(classes)} class(es) {list(classes)}; a classification needs at least two")
    if name == "binary" and len(classes) != 2:
        raise ConfigError(f"task=binary needs two classes, the data has {len(classes)}; use task=multiclass")
    weights = _weights(class_weights, len(classes), targets)
    kind = Binary if name == "binary" else Multiclass
    return _restored(kind(classes, label_smoothing=label_smoothing, class_weights=weights), record)


def _restored(task: Task, record: Mapping[str, Any] | None) -> Task:
    task.restore(record or {})
    return task


def _weights(
    choice: str | Sequence[float], classes: int, train_targets: np.ndarray | None, *, shares: bool = False
) -> Tensor | None:
    """Of each class; of each label where it is present, relative to where it is absent; of masks, by the pixels."""
    if choice == "none":
        return None
    if choice == "balanced":
        if train_targets is None:
            raise ConfigError("loss.class_weights=balanced needs the targets of the training split")
        targets = torch.as_tensor(train_targets)
        if targets.ndim == 2 and not shares:
            present = targets.float().sum(dim=0)
            # A label on every image, or on none, has nothing to be weighed against.
            known = (present > 0) & (present < len(targets))
            return torch.where(known, (len(targets) - present) / present.clamp(min=1), 1.0)
        counts = targets.double().sum(dim=0) if shares else torch.bincount(targets, minlength=classes)
        # A class without training images has no loss to weigh.
        return torch.where(counts > 0, counts.sum() / (classes * counts.where(counts > 0, 1)), 0.0).float()
    if isinstance(choice, str):
        raise ConfigError(f"loss.class_weights={choice} is not none, balanced or one number a class")
    if len(choice) != classes:
        raise ConfigError(f"loss.class_weights has {len(choice)} numbers for {classes} classes; give one a class")
    if min(choice) < 0 or max(choice) <= 0 or not all(map(math.isfinite, choice)):
        raise ConfigError(f"loss.class_weights={list(choice)}: weights are not negative, and one is above 0")
    return torch.tensor([float(value) for value in choice])
