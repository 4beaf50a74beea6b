"""Opening an entry, or making it: by one run at a time, and by all processes of that run together."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from headstart.cache.building import ShardWriter
from headstart.cache.decide import Settings, too_large
from headstart.cache.entry import Entry
from headstart.cache.extract import Prefix, extract
from headstart.cache.pixels import decoding_threads
from headstart.cache.store import Store
from headstart.data.dataset import ImageDataset
from headstart.data.input_spec import InputSpec
from headstart.errors import CacheError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """The activations of one split, in one view of it.

    Attributes:
        key: of the entry.
        prefix: what makes them.
        dataset: the split.
        spec: of the images.
        view: the epoch whose augmentation is taken, where the data set augments.
        copies: how many entries of this size the run needs.
        about: recorded with the entry, for readers.
    """

    key: str
    prefix: Prefix
    dataset: ImageDataset
    spec: InputSpec
    view: int | None
    copies: int
    about: dict[str, Any]


@dataclass(frozen=True)
class Provided:
    """An opened entry.

    Attributes:
        entry: open.
        hit: it was there already.
    """

    entry: Entry
    hit: bool


def provide(wanted: Wanted, store: Store, trainer: pl.Trainer, settings: Settings) -> Provided | str:
    """The entry, or why it is not made. Every process of the run calls this at the same time.

    Raises:
        CacheError: no space, or a folder that not all processes see.
    """
    first = trainer.is_global_zero
    entry = store.open(wanted.key) if first else None
    hit = bool(trainer.strategy.broadcast(entry is not None))
    if not hit:
        kind = wanted.prefix.probe(wanted.spec.shape)
        refusal = _refusal(wanted, kind.row_bytes, store, settings) if first else None
        refusal = trainer.strategy.broadcast(refusal)
        if refusal is not None:
            return str(refusal)
        about = {**wanted.about, "kind": kind.as_dict()}
        hit = _build(wanted, store, trainer, about) if first else _help(wanted, trainer)
    entry = entry or store.open(wanted.key, verify=False)
    if entry is None:
        raise CacheError(
            f"{store.root / wanted.key} cannot be opened by process {trainer.global_rank}; put paths.cache_dir where "
            "all machines of the training see it, or use cache=off"
        )
    return Provided(entry, hit)


def _build(wanted: Wanted, store: Store, trainer: pl.Trainer, about: dict[str, Any]) -> bool:
    """The first process's part; True where another run has made the entry meanwhile."""
    count = len(wanted.dataset)
    with store.building(wanted.key) as build:
        trainer.strategy.broadcast(None if build is None else str(build.folder))
        if build is not None:
            _log.info("storing what the network up to %s makes of %d images", wanted.about["after"], count)
            _write(wanted, build.folder, trainer)
            trainer.strategy.barrier("activations written")
            build.finish(about, rows=count)
    trainer.strategy.barrier("activations stored")
    return build is None


def _help(wanted: Wanted, trainer: pl.Trainer) -> bool:
    """The part of every other process."""
    folder: str | None = trainer.strategy.broadcast(None)
    if folder is not None:
        _write(wanted, Path(folder), trainer)
        trainer.strategy.barrier("activations written")
    trainer.strategy.barrier("activations stored")
    return folder is None


def _write(wanted: Wanted, folder: Path, trainer: pl.Trainer) -> None:
    rank, world, count = trainer.global_rank, trainer.world_size, len(wanted.dataset)
    mine = range(rank * count // world, (rank + 1) * count // world)
    threads = decoding_threads(trainer.num_devices)
    extract(wanted.prefix, wanted.dataset, mine, ShardWriter(folder, part=rank), threads=threads, view=wanted.view or 0)


def _refusal(wanted: Wanted, row_bytes: int, store: Store, settings: Settings) -> str | None:
    channels, height, width = wanted.spec.shape
    return too_large(
        settings,
        rows=len(wanted.dataset) * wanted.copies,
        row_bytes=row_bytes,
        image_bytes=channels * height * width,
        free_bytes=store.free_bytes(),
    )
