"""Batches of stored rows, in exactly the order in which the images would have come."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from headstart.store.entry import Entry

# Up to this size rows are copied to the accelerator once, instead of batch by batch.
_RESIDENT_BYTES = 2 * 2**30


class StoredBatches:
    """An iterable of batches: what the rows stand for under its name, ``targets``, ``index``, and constants.

    It takes the place of a DataLoader and follows that loader's own sampler. There is nothing to decode, so it needs
    no workers.

    Args:
        name: of the rows in a batch, ``activations`` or ``images``.
        entries: one for each augmented view, else a single one; an epoch uses the view of its number, modulo them.
        targets: of the whole split; masks are taken from the images' data set.
        images: the loader of the images that the rows stand for; it is never iterated.
        decode: rows as they are stored, on the device, with the epoch and their indices, to what a batch holds.
        device: where the batches are wanted.
        constants: further items of every batch.
    """

    def __init__(
        self,
        name: str,
        entries: Sequence[Entry],
        targets: np.ndarray,
        images: DataLoader,
        *,
        decode: Callable[[Tensor, int, np.ndarray], Tensor],
        device: torch.device,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.entries = name, list(entries)
        self.batch_sampler: Any = images.batch_sampler
        self._decode, self._device, self._constants = decode, device, dict(constants or {})
        dataset: Any = images.dataset
        self._masks: Callable[[int, np.ndarray], Tensor] | None = dataset.masks if dataset.records.masks else None
        wide = targets.astype(np.int64) if np.issubdtype(targets.dtype, np.integer) else targets
        self._targets = torch.from_numpy(np.ascontiguousarray(wide))
        self._resident: list[Tensor] | None = None
        size = sum(entry.meta.size_bytes for entry in entries)
        if device.type == "cuda" and size <= _RESIDENT_BYTES:
            self._resident = [torch.cat([torch.from_numpy(part).to(device) for part in e.shards]) for e in entries]
            self._targets = self._targets.to(device)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for keys in self.batch_sampler:
            yield self._batch(keys[0][0], np.fromiter((index for _, index in keys), dtype=np.int64, count=len(keys)))

    @property
    def sampler(self) -> Any:
        """The order; Lightning sets its epoch."""
        return self.batch_sampler.sampler

    def whole(self) -> tuple[list[Tensor], Tensor]:
        """All rows of each view, and the targets, in the split's own order."""
        everything = [self._batch(view, np.arange(len(entry))) for view, entry in enumerate(self.entries)]
        return [batch[self.name] for batch in everything], self._targets

    def close(self) -> None:
        """Let go of the entries."""
        self._resident = None
        for entry in self.entries:
            entry.close()

    def _batch(self, epoch: int, indices: np.ndarray) -> dict[str, Any]:
        positions, view = indices % len(self._targets), epoch % len(self.entries)
        index = torch.from_numpy(positions)
        if self._resident is not None:
            index = index.to(self._device)
            rows = self._resident[view].index_select(0, index)
        else:
            rows = torch.from_numpy(self.entries[view].rows(positions)).to(self._device)
        shown = self._decode(rows, epoch, indices)
        targets = self._targets[index] if self._masks is None else self._masks(epoch, positions)
        return {self.name: shown, "targets": targets, "index": index, **self._constants}
