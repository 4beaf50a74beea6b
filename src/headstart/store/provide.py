"""Opening an entry, or making it: by one run at a time, and by all processes of that run together."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from headstart.errors import CacheError
from headstart.store.building import ShardWriter
from headstart.store.entry import Entry
from headstart.store.store import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """Rows that a run asks for, one an image.

    Attributes:
        key: of the entry.
        rows: how many.
        describe: size of a row in bytes and what to record of its kind; asked only where the entry must be made.
        write: makes the rows of a part of the split.
        refuse: given the size of a row in bytes and the free space, why the entry is not made, or None.
        what: in a message, ``storing <what>``.
        about: recorded with the entry, for readers.
    """

    key: str
    rows: int
    describe: Callable[[], tuple[int, dict[str, Any]]]
    write: Callable[[ShardWriter, range], None]
    refuse: Callable[[int, int], str | None]
    what: str
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


def provide(wanted: Wanted, store: Store, trainer: pl.Trainer) -> Provided | str:
    """The entry, or why it is not made. Every process of the run calls this at the same time.

    Raises:
        CacheError: a folder that not all processes see, or, for several processes, one that cannot be written to.
    """
    first = trainer.is_global_zero
    entry = store.open(wanted.key) if first else None
    hit = bool(trainer.strategy.broadcast(entry is not None))
    if not hit:
        row_bytes, kind = wanted.describe()
        refusal = wanted.refuse(row_bytes, store.free_bytes()) if first else None
        refusal = trainer.strategy.broadcast(refusal)
        if refusal is not None:
            return str(refusal)
        try:
            hit = _build(wanted, store, trainer, kind) if first else _help(wanted, trainer)
        except CacheError as error:
            # The other processes of a run wait for these rows, so only a run alone can do without.
            if trainer.world_size > 1 or not isinstance(error.__cause__, OSError):
                raise
            _log.warning("nothing is stored of %s: %s", wanted.what, error)
            return str(error)
    entry = entry or store.open(wanted.key, verify=False)
    if entry is None:
        raise CacheError(
            f"{store.root / wanted.key} cannot be opened by process {trainer.global_rank}; put paths.cache_dir where "
            "all machines of the training see it, or use cache=off"
        )
    return Provided(entry, hit)


def _build(wanted: Wanted, store: Store, trainer: pl.Trainer, kind: dict[str, Any]) -> bool:
    """The first process's part; True where another run has made the entry meanwhile."""
    with store.building(wanted.key) as build:
        trainer.strategy.broadcast(None if build is None else str(build.folder))
        if build is not None:
            _log.info("storing %s", wanted.what)
            _write(wanted, build.folder, trainer)
            trainer.strategy.barrier("rows written")
            build.finish({**wanted.about, "kind": kind}, rows=wanted.rows)
    trainer.strategy.barrier("rows stored")
    return build is None


def _help(wanted: Wanted, trainer: pl.Trainer) -> bool:
    """The part of every other process."""
    folder: str | None = trainer.strategy.broadcast(None)
    if folder is not None:
        _write(wanted, Path(folder), trainer)
        trainer.strategy.barrier("rows written")
    trainer.strategy.barrier("rows stored")
    return folder is None


def _write(wanted: Wanted, folder: Path, trainer: pl.Trainer) -> None:
    rank, world = trainer.global_rank, trainer.world_size
    mine = range(rank * wanted.rows // world, (rank + 1) * wanted.rows // world)
    with ShardWriter(folder, part=rank) as writer:
        wanted.write(writer, mine)
