"""Keep the weights near those that training started from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.strategies.contract import Step, Strength
from headstart.strategies.full import Full

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.model.transfer_model import TransferModel


@dataclass(frozen=True)
class L2SP(Full):
    """Fine-tune everything under the L2-SP penalty, which takes the place of weight decay.

    The extra losses are ``alpha / 2 * ||w_S - w_S0||^2`` over the backbone's parameters, ``w_S0`` being those that
    it started from, and ``beta / 2 * ||w_H||^2`` over the head's.

    The authors' code (holyseven/TransferLearningClassification) has the same two terms over kernels only, 0.01 for
    both, under SGD with momentum. Here biases, scales and shifts count too; and under Adam the pull is divided by the
    root of the mean squared gradient like any other part of the loss (Loshchilov and Hutter, ICLR 2019, section 2), so
    that strengths found with SGD do not carry over.

    Reference: Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional
    Networks", ICML 2018, eq. 3.

    Attributes:
        alpha: strength for the backbone; the paper searches 1e-3 to 1e-1.
        beta: strength for the head.
    """

    decays = False
    alpha: Strength = 0.01
    beta: Strength = 0.01

    def losses(self, model: "TransferModel") -> "Mapping[str, Callable[[Step], Tensor]]":
        """``l2sp``, and ``l2`` of the head."""
        return {"l2sp": distance_to_start(model, self.alpha), "l2": head_norm(model, self.beta)}


def distance_to_start(model: "TransferModel", alpha: float) -> "Callable[[Step], Tensor]":
    """``alpha / 2`` times the squared distance of the backbone's parameters from what they are now."""
    import torch

    parameters = list(model.backbone.parameters())
    starts = [parameter.detach().clone() for parameter in parameters]

    def penalty(step: Step) -> "Tensor":
        nonlocal starts
        if starts and starts[0].device != parameters[0].device:
            starts = [start.to(parameters[0].device) for start in starts]
        # What is frozen has not moved, and has no gradient to give.
        moved = [(p, start) for p, start in zip(parameters, starts, strict=True) if p.requires_grad]
        if not moved:
            return step.outputs.new_zeros(())
        return alpha / 2 * torch.stack([(p - start).float().square().sum() for p, start in moved]).sum()

    return penalty


def head_norm(model: "TransferModel", beta: float) -> "Callable[[Step], Tensor]":
    """``beta / 2`` times the squared norm of the head's parameters."""
    import torch

    parameters = [*model.head.parameters(), *model.auxiliary.parameters()]

    def penalty(step: Step) -> "Tensor":
        return beta / 2 * torch.stack([parameter.float().square().sum() for parameter in parameters]).sum()

    return penalty
