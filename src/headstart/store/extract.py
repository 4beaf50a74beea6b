"""The one pass of a split through the frozen prefix."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from headstart.backbones.trace import evaluation_mode
from headstart.data.affine import AffineAugment, draws
from headstart.data.dataset import ImageDataset
from headstart.data.transforms import EvalTransform, normalised
from headstart.heads.pool import Pool
from headstart.model.transfer_model import TransferModel
from headstart.store.building import ShardWriter
from headstart.store.pixels import pixel_batches
from headstart.system.console import duration

_log = logging.getLogger(__name__)

# NumPy has no bfloat16: its bits are stored as integers.
_STORED = {torch.bfloat16: torch.int16}
_WORTH_SAYING_S = 10
_PIXELS_A_BATCH = {"cpu": 64 * 224 * 224, "cuda": 256 * 224 * 224}


@dataclass(frozen=True)
class Prefix:
    """The frozen prefix as the run computes it.

    Attributes:
        model: on its device.
        stages: how many.
        pool: the head's pooling, where the activations are stored pooled.
        device: where the model is.
        precision: the trainer's context for a forward pass.
        convert: of images to what the trainer's precision feeds the model.
        channels_last: give images this memory layout.
        half: store 32-bit activations in 16 bits.
    """

    model: TransferModel
    stages: int
    pool: nn.Module | None
    device: torch.device
    precision: Callable[[], AbstractContextManager[Any]]
    convert: Callable[[Tensor], Tensor]
    channels_last: bool
    half: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` float32 on the device to activations ``(B, ...)``."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        images = self.convert(images.contiguous(memory_format=layout))
        with torch.no_grad(), self.precision():
            activations = self.model.prefix(images, self.stages)
            return activations if self.pool is None else self.pool(activations)

    def probe(self, shape: tuple[int, int, int]) -> "Kind":
        """What the activations of one image are like."""
        with evaluation_mode(self.model):
            return Kind.of(self(torch.zeros((2, *shape), device=self.device)), half=self.half)


@dataclass(frozen=True)
class Kind:
    """How activations are stored and given back.

    Attributes:
        computed: torch's name of the type the network computes.
        stored: torch's name of the type on disk.
        shape: of one row on disk.
        nhwc: ``(C, H, W)`` activations lie on disk as ``(H, W, C)``, as they do in memory with channels last.
    """

    computed: str
    stored: str
    shape: tuple[int, ...]
    nhwc: bool

    @classmethod
    def of(cls, activations: Tensor, *, half: bool) -> "Kind":
        """The kind of a batch of activations."""
        computed = activations.dtype
        stored = torch.float16 if half and computed == torch.float32 else computed
        nhwc = activations.ndim == 4 and not activations.is_contiguous() and _is_channels_last(activations)
        shape = activations.shape[1:]
        return cls(_name(computed), _name(stored), tuple((*shape[1:], shape[0]) if nhwc else shape), nhwc)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Kind":
        """The inverse of :meth:`as_dict`."""
        return cls(values["computed"], values["stored"], tuple(values["shape"]), values["nhwc"])

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"computed": self.computed, "stored": self.stored, "shape": list(self.shape), "nhwc": self.nhwc}

    @property
    def row_bytes(self) -> int:
        """Size of one row on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * getattr(torch, self.stored).itemsize

    def to_rows(self, activations: Tensor) -> np.ndarray:
        """``(B, ...)`` activations to rows for the disk."""
        if self.nhwc:
            activations = activations.permute(0, 2, 3, 1)
        rows = activations.detach().to(getattr(torch, self.stored)).contiguous()
        return rows.view(_STORED.get(rows.dtype, rows.dtype)).cpu().numpy()

    def from_rows(self, rows: Tensor) -> Tensor:
        """Rows from the disk, as a tensor, to ``(B, ...)`` activations."""
        activations = rows.view(getattr(torch, self.stored)).to(getattr(torch, self.computed))
        return activations.permute(0, 3, 1, 2) if self.nhwc else activations


def extract(
    prefix: Prefix, dataset: ImageDataset, positions: range, writers: Mapping[int | None, ShardWriter], *, threads: int
) -> None:
    """Write the activations of these positions of a split; memory does not grow with their number.

    Each image is decoded once, however many views of it are asked for.

    Args:
        prefix: makes the activations.
        dataset: the split, as evaluation sees it or augmented.
        positions: a contiguous part of the split.
        writers: take the rows, by the epoch whose augmentation they are of; None: as evaluation sees the images.
        threads: that decode images.
    """
    kind: Kind | None = None
    started = time.perf_counter()
    with evaluation_mode(prefix.model):
        for number, (view, images) in enumerate(
            _batches(prefix, dataset, positions, list(writers), threads=threads), 1
        ):
            activations = prefix(images)
            kind = kind or Kind.of(activations, half=prefix.half)
            writers[view].append(kind.to_rows(activations))
            if number == len(writers):
                rest = (time.perf_counter() - started) * (len(positions) / len(images) - 1)
                if rest > _WORTH_SAYING_S:
                    _log.info("this takes about %s", duration(rest))


def _batches(
    prefix: Prefix, dataset: ImageDataset, positions: range, views: Sequence[int | None], *, threads: int
) -> Iterator[tuple[int | None, Tensor]]:
    """Views and their images: all views of some images, then those of the next."""
    transform, device = dataset.transform, prefix.device
    spec = transform.spec  # type: ignore[union-attr]
    size = _PIXELS_A_BATCH.get(device.type, _PIXELS_A_BATCH["cpu"])
    batch_size = max(8, min(1024, size // (spec.height * spec.width)))
    if not isinstance(transform, EvalTransform | AffineAugment):
        yield from _one_by_one(dataset, positions, views, batch_size=batch_size, threads=threads, device=device)
        return
    start = positions.start
    for pixels in pixel_batches(dataset, positions, batch_size=batch_size, threads=threads):
        rows = torch.from_numpy(pixels).to(device)
        for view in views:
            if isinstance(transform, EvalTransform):
                yield view, normalised(rows, spec)
            else:
                numbers = [draws(dataset.seed, view or 0, start + place) for place in range(len(rows))]
                yield view, transform(rows, np.stack(numbers))
        start += len(rows)


def _one_by_one(
    dataset: ImageDataset,
    positions: range,
    views: Sequence[int | None],
    *,
    batch_size: int,
    threads: int,
    device: torch.device,
) -> Iterator[tuple[int | None, Tensor]]:
    """The same for an augmentation that takes one image at a time and seeds the process's generators."""
    loader = DataLoader(
        _AllViews(dataset, [view or 0 for view in views]),
        batch_size=max(1, batch_size // len(views)),
        sampler=positions,
        # Threads would disturb each other.
        num_workers=threads if threads > 1 and len(positions) > batch_size else 0,
        generator=torch.Generator().manual_seed(0),
    )
    for batch in loader:
        for place, view in enumerate(views):
            yield view, batch[:, place].to(device)


@dataclass(frozen=True)
class _AllViews(Dataset[Tensor]):
    """``(views, C, H, W)`` of each image, which is decoded once."""

    dataset: ImageDataset
    views: Sequence[int]

    def __getitem__(self, position: int) -> Tensor:
        image = self.dataset.image(position)
        return torch.stack([self.dataset.shown(image, view, position) for view in self.views])

    def __len__(self) -> int:
        return len(self.dataset)


def _is_channels_last(activations: Tensor) -> bool:
    return activations.is_contiguous(memory_format=torch.channels_last)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def pooling_of(model: TransferModel) -> Pool | None:
    """The head's pooling, if that is the first thing the head does, and all it does with the features."""
    pool = getattr(model.head, "pool", None)
    if not isinstance(pool, Pool):
        return None
    shape = model.backbone.features.shape
    parameter = next(model.head.parameters(), torch.zeros(1))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((2, *shape), generator=generator).to(parameter)
    mode = model.head.training
    model.head.eval()
    try:
        with torch.no_grad():
            same = torch.equal(model.head(features), model.head(pool(features)))
    except (RuntimeError, IndexError, ValueError):
        same = False
    finally:
        model.head.train(mode)
    return pool if same else None
