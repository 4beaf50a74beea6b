"""Opening entries, or making them: by one run at a time, and by all processes of that run together."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from headstart.errors import CacheError
from headstart.store.building import ShardWriter
from headstart.store.decide import gigabytes
from headstart.store.entry import Entry
from headstart.store.store import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """Rows that a run asks for, one an image, in one entry or in several that are made in one pass over the images.

    Attributes:
        entries: their keys, with what is recorded of each for readers.
        rows: how many an entry has.
        describe: size of a row in bytes and what to record of its kind; asked only where an entry must be made.
        write: makes the rows of a part of the split, for the keys that it is given writers of.
        refuse: given the size of a row in bytes and the free space, why nothing is made, or None.
        what: in a message, ``storing <what>``.
        images: SHA-256 of the image of each row, where rows are to be found by it.
    """

    entries: Mapping[str, Mapping[str, Any]]
    rows: int
    describe: Callable[[], tuple[int, dict[str, Any]]]
    write: Callable[[Mapping[str, ShardWriter], range], None]
    refuse: Callable[[int, int], str | None]
    what: str
    images: Sequence[str] = ()


@dataclass(frozen=True)
class Provided:
    """An opened entry.

    Attributes:
        entry: open.
        hit: it was there already.
    """

    entry: Entry
    hit: bool


def provide(wanted: Wanted, store: Store, trainer: pl.Trainer) -> list[Provided] | str:
    """The entries, or why they are not made. Every process of the run calls this at the same time.

    Raises:
        CacheError: a folder that not all processes see, or, for several processes, one that cannot be written to.
    """
    first = trainer.is_global_zero
    opened = {key: store.open(key) if first else None for key in wanted.entries}
    missing: list[str] = trainer.strategy.broadcast([key for key, entry in opened.items() if entry is None])
    made: Sequence[str] = ()
    if missing:
        try:
            found = _make(wanted, missing, store, trainer)
        except BaseException:
            _close(opened)
            raise
        if isinstance(found, str):
            _close(opened)
            return found
        made = found
    provided = []
    for key in wanted.entries:
        entry = opened[key]
        if entry is None:
            entry = store.open(key, verify=False)
        if entry is None:
            raise CacheError(
                f"{store.root / key} cannot be opened by process {trainer.global_rank}; put paths.cache_dir where "
                "all machines of the training see it, or use cache=off"
            )
        provided.append(Provided(entry, key not in made))
    return provided


def _make(wanted: Wanted, missing: Sequence[str], store: Store, trainer: pl.Trainer) -> Sequence[str] | str:
    """Make what is missing. Returns the keys that were made here and not by another run meanwhile, or why none was."""
    first = trainer.is_global_zero
    described = wanted.describe()
    refusal = wanted.refuse(described[0], store.free_bytes()) if first else None
    refusal = trainer.strategy.broadcast(refusal)
    if refusal is not None:
        return str(refusal)
    try:
        return _build(wanted, missing, store, trainer, described) if first else _help(wanted, trainer)
    except CacheError as error:
        # The other processes of a run wait for these rows, so only a run alone can do without.
        if trainer.world_size > 1 or not isinstance(error.__cause__, OSError):
            raise
        _log.warning("nothing is stored of %s: %s", wanted.what, error)
        return str(error)


def _build(
    wanted: Wanted, missing: Sequence[str], store: Store, trainer: pl.Trainer, described: tuple[int, dict[str, Any]]
) -> list[str]:
    """The first process's part."""
    row_bytes, kind = described
    with ExitStack() as stack:
        begun = {key: stack.enter_context(store.building(key)) for key in missing}
        builds = {key: build for key, build in begun.items() if build is not None}
        trainer.strategy.broadcast({key: str(build.folder) for key, build in builds.items()})
        if builds:
            size = gigabytes(row_bytes * wanted.rows * len(builds))
            _log.info("storing %s (%s)", wanted.what, size)
            _write(wanted, {key: build.folder for key, build in builds.items()}, trainer)
            trainer.strategy.barrier("rows written")
            for key, build in builds.items():
                about = {**wanted.entries[key], "kind": kind}
                build.finish(about, rows=wanted.rows, images=wanted.images, share=1 / len(builds))
    trainer.strategy.barrier("rows stored")
    return list(builds)


def _help(wanted: Wanted, trainer: pl.Trainer) -> list[str]:
    """The part of every other process."""
    folders: dict[str, str] = trainer.strategy.broadcast({})
    if folders:
        _write(wanted, {key: Path(folder) for key, folder in folders.items()}, trainer)
        trainer.strategy.barrier("rows written")
    trainer.strategy.barrier("rows stored")
    return list(folders)


def _write(wanted: Wanted, folders: Mapping[str, Path], trainer: pl.Trainer) -> None:
    rank, world = trainer.global_rank, trainer.world_size
    mine = range(rank * wanted.rows // world, (rank + 1) * wanted.rows // world)
    with ExitStack() as stack:
        writers = {key: stack.enter_context(ShardWriter(folder, part=rank)) for key, folder in folders.items()}
        wanted.write(writers, mine)


def _close(opened: Mapping[str, Entry | None]) -> None:
    for entry in opened.values():
        if entry is not None:
            entry.close()
