"""Batch transforms: images of a batch mixed with each other, and their targets with them."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from headstart.data.dataset import seeded

Name = Literal["none", "mixup", "cutmix"]


class BatchTransform:
    """Mixes each training batch; the random numbers are a function of seed, epoch, batch and process.

    References: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix:
    Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019.

    Args:
        name: ``mixup`` blends whole images, ``cutmix`` pastes a rectangle.
        alpha: of the Beta(alpha, alpha) distribution of the shares.
        classes: number of classes.
        seed: of the run.
    """

    def __init__(self, name: Literal["mixup", "cutmix"], *, alpha: float, classes: int, seed: int) -> None:
        kind = v2.MixUp if name == "mixup" else v2.CutMix
        self.mix = kind(alpha=alpha, num_classes=classes)
        self.seed = seed

    def __call__(
        self, images: Tensor, targets: Tensor, *, epoch: int, batch_index: int, rank: int = 0
    ) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` and ``(B,)`` class numbers to mixed images and ``(B, classes)`` shares."""
        with seeded(self.seed, epoch, batch_index, rank):
            mixed: tuple[Tensor, Tensor] = self.mix(images, targets)
        return mixed


def hard_targets(targets: Tensor) -> Tensor:
    """``(B,)`` class numbers, of ``(B, classes)`` shares the largest."""
    return targets if targets.ndim == 1 else torch.argmax(targets, dim=1)
