"""Images through a network as a stream: the next batch is decoded while the network works on the present one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from headstart.errors import DataError

_DECODERS = 8

Image = TypeVar("Image")
Prepared = TypeVar("Prepared")
Row = TypeVar("Row")


def streamed(
    images: Iterable[Image],
    prepare: Callable[[Image], Prepared],
    rows: Callable[[list[Prepared]], Sequence[Row]],
    *,
    batch_size: int,
) -> Iterator[tuple[Image, Row | DataError]]:
    """Each image with its row, or with why it is none; at most two batches are asked for ahead.

    Args:
        images: in any number.
        prepare: what the network takes of one, in several threads; a DataError is its outcome.
        rows: of a batch of those, within inference mode.
        batch_size: images at a time.
    """

    def load(image: Image) -> tuple[Prepared] | DataError:
        try:
            return (prepare(image),)
        except DataError as error:
            return error

    waiting = iter(images)
    with ThreadPoolExecutor(_DECODERS) as pool:
        coming = [(image, pool.submit(load, image)) for image in islice(waiting, batch_size)]
        while coming:
            batch = [(image, future.result()) for image, future in coming]
            coming = [(image, pool.submit(load, image)) for image in islice(waiting, batch_size)]
            prepared = [item[0] for _, item in batch if not isinstance(item, DataError)]
            with torch.inference_mode():
                made = iter(rows(prepared) if prepared else ())
            for image, item in batch:
                yield image, item if isinstance(item, DataError) else next(made)
