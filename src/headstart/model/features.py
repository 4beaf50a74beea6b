"""Passes over a whole split without training."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from headstart.backbones.contract import Backbone
from headstart.backbones.trace import evaluation_mode
from headstart.data.datamodule import ImageDataModule
from headstart.heads.pool import Pool


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
    home = next(backbone.parameters()).device
    features, targets = [], []
    with evaluation_mode(backbone.to(device)):
        for batch in batches(data, split):
            features.append(pool(backbone.forward_features(batch["images"].to(device))).float().cpu())
            targets.append(batch["targets"])
    backbone.to(home)
    return torch.cat(features), torch.cat(targets)
