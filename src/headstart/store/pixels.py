"""Images decoded and resized in threads, ahead of whatever consumes them, in batches of bytes."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from headstart.data.affine import AffineAugment
from headstart.data.dataset import ImageDataset
from headstart.data.transforms import EvalTransform

_BATCHES_AHEAD = 2


def pixel_batches(dataset: ImageDataset, positions: range, *, batch_size: int, threads: int) -> Iterator[np.ndarray]:
    """Bytes: ``(B, H, W, C)``, what evaluation makes of the images before it normalises them.

    Of an augmented split ``(B, row_bytes)``, the images as :class:`AffineAugment` keeps them. Decoding and resizing
    leave the interpreter's lock, so threads suffice; at most a few batches are in memory.
    """
    transform = dataset.transform
    assert isinstance(transform, EvalTransform | AffineAugment)

    def pixels(position: int) -> np.ndarray:
        return transform.keep(dataset.image(position))

    starts = iter(range(positions.start, positions.stop, batch_size))
    pending: deque[list[Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        try:
            while True:
                for start in starts:
                    stop = min(start + batch_size, positions.stop)
                    pending.append([pool.submit(pixels, position) for position in range(start, stop)])
                    if len(pending) > _BATCHES_AHEAD:
                        break
                if not pending:
                    return
                yield np.stack([future.result() for future in pending.popleft()])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def decoding_threads(processes: int) -> int:
    """How many threads decode in each of this machine's processes."""
    from headstart.system.hardware import usable_cores

    return max(1, min(32, usable_cores() // max(1, processes), (os.cpu_count() or 1)))
