"""Decoded images: what evaluation makes of an image file before normalising it, kept as bytes.

For everything that is not frozen. Validation and test images, and training images without augmentation, are decoded
and resized once; afterwards a batch is a copy from memory and a normalisation, and is the same to the last bit.
"""

from headstart.cache.building import ShardWriter
from headstart.cache.decide import Settings, gigabytes
from headstart.cache.key import pixels_key
from headstart.cache.pixels import decoding_threads, pixel_batches
from headstart.cache.provide import Wanted
from headstart.data.datamodule import ImageDataModule
from headstart.hardware import memory_bytes

_BATCH = 64
# Beyond this share of the machine's memory the files would be read from disk again and again.
_MEMORY_SHARE = 0.25


def wanted_pixels(data: ImageDataModule, split: str, settings: Settings, *, processes: int) -> Wanted:
    """The decoded images of a split, for :func:`headstart.cache.provide.provide`.

    Args:
        data: prepared and configured.
        split: of it.
        settings: of the cache.
        processes: of the run on this machine; they share its cores.
    """
    spec, dataset = data.spec, data.dataset(split)
    assert spec is not None
    channels, height, width = spec.shape

    def write(writer: ShardWriter, part: range) -> None:
        threads = decoding_threads(processes)
        for batch in pixel_batches(dataset, part, batch_size=_BATCH, threads=threads):
            writer.append(batch)

    def refuse(row_bytes: int, free_bytes: int) -> str | None:
        size, limit = len(dataset) * row_bytes, min(int(_MEMORY_SHARE * memory_bytes()), free_bytes // 2)
        if settings.max_bytes is not None:
            limit = min(limit, settings.max_bytes)
        return f"{gigabytes(size)} of decoded images exceed the {gigabytes(limit)} kept" if size > limit else None

    return Wanted(
        key=pixels_key(spec, dataset.records.digests),
        rows=len(dataset),
        describe=lambda: (channels * height * width, {"stored": "uint8"}),
        write=write,
        refuse=refuse,
        what=f"{len(dataset)} decoded {split} images",
        about={"data": data.summary()["name"], "split": split, "after": "decoding"},
    )
