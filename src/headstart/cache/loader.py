"""Batches of stored activations, in exactly the order in which the images would have come."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from headstart.cache.entry import Entry
from headstart.cache.extract import Kind

# Up to this size activations are copied to the accelerator once, instead of batch by batch.
_RESIDENT_BYTES = 2 * 2**30


class ActivationBatches:
    """An iterable of batches: ``activations``, ``targets``, ``index``, and ``stages``, what they are the output of.

    It takes the place of a DataLoader and follows that loader's own sampler. There is nothing to decode, so it needs
    no workers. Lightning sets the epoch through :attr:`sampler`.

    Args:
        entries: one for each augmented view, else a single one; an epoch uses the view of its number, modulo them.
        targets: of the whole split.
        images: the loader of the images that the activations stand for; it is never iterated.
        stages: length of the stored prefix.
        device: where the batches are wanted.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        targets: np.ndarray,
        images: DataLoader,
        *,
        stages: int,
        device: torch.device | None = None,
    ) -> None:
        self.entries, self.stages = list(entries), stages
        self.batch_sampler: Any = images.batch_sampler
        self._kind = Kind.from_dict(dict(entries[0].meta.about["kind"]))
        wide = targets.astype(np.int64) if np.issubdtype(targets.dtype, np.integer) else targets
        self._targets = torch.from_numpy(np.ascontiguousarray(wide))
        self._resident: list[Tensor] | None = None
        size = sum(entry.meta.size_bytes for entry in entries)
        if device is not None and device.type == "cuda" and size <= _RESIDENT_BYTES:
            self._resident = [torch.cat([torch.from_numpy(part).to(device) for part in e.shards]) for e in entries]
            self._targets = self._targets.to(device)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for keys in self.batch_sampler:
            positions = np.fromiter((index for _, index in keys), dtype=np.int64, count=len(keys))
            yield self._batch(keys[0][0] % len(self.entries), positions)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration's order and view are those of this epoch."""
        self.batch_sampler.sampler.set_epoch(epoch)

    def close(self) -> None:
        """Let go of the entries."""
        self._resident = None
        for entry in self.entries:
            entry.close()

    def _batch(self, view: int, positions: np.ndarray) -> dict[str, Any]:
        index = torch.from_numpy(positions)
        if self._resident is not None:
            index = index.to(self._targets.device)
            rows = self._resident[view].index_select(0, index)
        else:
            rows = torch.from_numpy(self.entries[view].rows(positions))
        return {
            "activations": self._kind.from_rows(rows),
            "targets": self._targets[index],
            "index": index,
            "stages": self.stages,
        }
