"""Shrink the directions in feature space that carry hardly anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.strategies.contract import Step, Strength
from headstart.strategies.full import Full
from headstart.system.options import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.model.transfer_model import TransferModel


@dataclass(frozen=True)
class BSS(Full):
    """Fine-tune everything under batch spectral shrinkage, against negative transfer.

    The extra loss is ``eta * sum of sigma_i^2`` over the ``k`` smallest singular values of the batch's pooled
    features ``(B, C)``. A batch has ``min(B, C)`` of them; where that is less than ``k``, all count.

    Reference: Chen et al., "Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for Safe
    Transfer Learning", NeurIPS 2019, eq. 4.

    Attributes:
        eta: strength.
        k: how many singular values are suppressed.
    """

    eta: Strength = 0.001
    k: Positive = 1

    def losses(self, model: "TransferModel") -> "Mapping[str, Callable[[Step], Tensor]]":
        """``bss``."""
        from headstart.heads.pool import Pool

        pool = Pool(model.backbone.features)
        return {"bss": lambda step: spectral_penalty(pool(step.features), eta=self.eta, k=self.k)}


def spectral_penalty(features: "Tensor", *, eta: float, k: int) -> "Tensor":
    """``eta`` times the sum of squares of the ``k`` smallest singular values of ``(B, C)``; a scalar."""
    import torch

    with torch.autocast(features.device.type, enabled=False):
        # In descending order.
        values = torch.linalg.svdvals(features.float())
        return eta * values[-k:].square().sum()
