"""Stored activations of a data set, whole and in memory."""

from dataclasses import dataclass

from torch import Tensor

from headstart.store.activations import CachedData
from headstart.store.decide import gigabytes
from headstart.system.hardware import memory_bytes

# Share of the memory that features may take.
_SHARE = 0.4


@dataclass(frozen=True)
class SplitFeatures:
    """What the frozen backbone makes of a split.

    Attributes:
        views: ``(N, ...)`` for each augmented view of the images, one without augmentation.
        targets: ``(N,)`` or ``(N, columns)``.
    """

    views: tuple[Tensor, ...]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and targets at positions of any shape, as an epoch sees them."""
        return self.views[epoch % len(self.views)][index], self.targets[index]


def load_features(loaders: CachedData) -> dict[str, SplitFeatures] | str:
    """Every split's features, extracted where they are not stored yet; or why they are not to be had.

    Args:
        loaders: with a trainer, whose device and precision the features are computed with.
    """
    [decision] = loaders.decisions
    if not decision.train:
        return decision.reason
    if decision.stages != len(loaders.model.backbone.stages):
        return "the backbone cannot be cut at its end, so a part of it would run in every step"
    features, room = {}, int(_SHARE * memory_bytes())
    for split in loaders.data.sizes:
        stored = loaders.stored(split)
        if stored is None:
            return str(loaders.record()["reason"]) or "there are no stored activations"
        size = sum(entry.meta.size_bytes for entry in stored.entries)
        room -= size
        if room < 0:
            stored.close()
            return f"{gigabytes(size)} of activations of the {split} images do not fit into memory"
        views, targets = stored.whole()
        features[split] = SplitFeatures(tuple(views), targets)
        stored.close()
    return features
