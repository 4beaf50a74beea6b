"""Interpolate between the weights that training started from and those that it ended with."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.errors import ConfigError
from headstart.model.description import ModelInfo
from headstart.model.phases import Phase
from headstart.strategies.contract import Extras, Surroundings
from headstart.strategies.full import Full

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.model.transfer_model import TransferModel


@dataclass(frozen=True)
class WiseFt(Full):
    """Fine-tune everything, then take ``(1 - alpha) * start + alpha * fine-tuned`` with the best validation metric.

    ``start`` is the whole model before training: the pretrained backbone and the initial head. With
    ``head_init=probe`` that head is a linear probe, as the method wants it; a random head (``head_init=default``)
    makes small alphas worthless, and the choice then is between alphas near 1. BatchNorm's running statistics are
    interpolated like weights, not recomputed. Of equally good alphas the largest is taken.

    Reference: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, eq. 1.

    Attributes:
        alphas: what is tried, each between 0 (start) and 1 (fine-tuned).
    """

    averages_weights = True
    alphas: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase in which everything learns.

        Raises:
            ConfigError: there are no alphas, or some are not between 0 and 1.
        """
        if not self.alphas or any(not 0.0 <= alpha <= 1.0 for alpha in self.alphas):
            raise ConfigError(f"strategy.alphas={list(self.alphas)} must be numbers from 0 to 1, at least one")
        return super().phases(model, max_epochs=max_epochs)

    def start(self, model: "TransferModel", run: Surroundings) -> Extras:
        """Remember where training starts, for what comes after it."""
        start = weights_of(model)
        return Extras(finish=lambda trained, evaluate: self.interpolated(trained, start, evaluate))

    def interpolated(
        self, model: "TransferModel", start: "Mapping[str, Tensor]", evaluate: Callable[[], float]
    ) -> dict[str, Any]:
        """Leave the best interpolation in the model."""
        end = weights_of(model)
        scores = {}
        for alpha in sorted(set(self.alphas), reverse=True):
            model.load_state_dict(interpolate(start, end, alpha))
            scores[alpha] = evaluate()
        best = max(scores, key=lambda alpha: -math.inf if math.isnan(scores[alpha]) else scores[alpha])
        model.load_state_dict(interpolate(start, end, best))
        return {"alpha": best, "scores": {str(alpha): score for alpha, score in sorted(scores.items())}}


def weights_of(model: "TransferModel") -> "dict[str, Tensor]":
    """Copies on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def interpolate(start: "Mapping[str, Tensor]", end: "Mapping[str, Tensor]", alpha: float) -> "dict[str, Tensor]":
    """``(1 - alpha) * start + alpha * end`` of what is not whole numbers; exact at 0 and 1. Counters are the end's."""
    if alpha in (0.0, 1.0):
        chosen = end if alpha == 1.0 else start
        return {name: chosen[name] if end[name].is_floating_point() else end[name] for name in end}
    return {
        name: (1 - alpha) * start[name] + alpha * end[name] if end[name].is_floating_point() else end[name]
        for name in end
    }
