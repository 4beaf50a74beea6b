"""Nearest class mean."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from headstart.backbones.contract import FeatureSpec
from headstart.heads.closed_form import Examples, LinearClosedForm, best_scale
from headstart.system.options import checked
from headstart.tasks.contract import Task

# Of a class without images, relative to the others' scores: never the nearest.
_NEVER = -1e4


class NearestClassMean(LinearClosedForm):
    """The class whose mean feature is nearest; there is nothing to choose, so validation only scores it.

    The outputs are similarities times one factor, that of the lowest loss on the training images: their softmax is
    *not calibrated*, above all where there are few training images.

    Reference: Mensink et al., "Distance-Based Image Classification", PAMI 2013; cosine: Qi et al., "Low-Shot Learning
    with Imprinted Weights", CVPR 2018.

    Args:
        metric: ``cosine`` (features and means of length 1) or ``euclidean``.
        refit: means over training and validation images together.
    """

    @checked("head")
    def __init__(
        self,
        features: FeatureSpec,
        outputs: int,
        *,
        metric: Literal["cosine", "euclidean"] = "cosine",
        refit: bool = False,
    ) -> None:
        super().__init__(features, outputs, refit=refit)
        self.metric = metric

    @property
    def plain_linear(self) -> torch.nn.Linear | None:
        """The layer, unless features are brought to length 1 before it."""
        return self.linear if self.metric == "euclidean" else None

    def values(self, images: int) -> Sequence[float | None]:
        """Nothing to choose."""
        return (None,)

    def solutions(self, examples: Examples, task: Task, values: Sequence[float | None]) -> Iterator[dict[str, Any]]:
        """The one solution; its note is ``scale``."""
        vectors = self._as_compared(examples.features.double())
        weight, bias = mean_layer(vectors, examples.targets.long(), len(task.classes), directions=self._cosine)
        for _ in values:
            outputs = vectors @ weight.T + bias
            scored = outputs[:, 1:] - outputs[:, :1] if self.outputs == 1 else outputs
            scale = best_scale(scored, examples.targets, task)
            self.put(scale * weight, scale * bias)
            yield {"scale": scale}

    def decide(self, vectors: Tensor) -> Tensor:
        """See :meth:`ClosedForm.decide`."""
        return super().decide(self._as_compared(vectors))

    @property
    def _cosine(self) -> bool:
        return self.metric == "cosine"

    def _as_compared(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=1) if self._cosine else vectors


def mean_layer(vectors: Tensor, targets: Tensor, classes: int, *, directions: bool = False) -> tuple[Tensor, Tensor]:
    """Class means as a linear layer.

    With ``m_c`` the mean of class ``c``, ``-||x - m_c||^2 / 2`` is linear in ``x`` up to what all classes share; with
    ``directions`` it is ``x . m_c / ||m_c||``.

    A class without images is never the nearest.

    Returns: weight ``(classes, C)`` and bias ``(classes,)``.
    """
    shares = F.one_hot(targets, classes).to(vectors).T
    counts = shares.sum(dim=1)
    present = counts > 0
    means = shares @ vectors / counts.clamp(min=1)[:, None]
    if directions:
        weight, bias = F.normalize(means, dim=1), vectors.new_zeros(classes)
    else:
        centre = means[present].mean(dim=0)
        weight, bias = means - centre, (centre.square().sum() - means.square().sum(dim=1)) / 2
    lowest = _NEVER * (1 + bias.abs().max() + weight.norm(dim=1).max() * vectors.norm(dim=1).max())
    return weight * present[:, None], torch.where(present, bias, lowest)
