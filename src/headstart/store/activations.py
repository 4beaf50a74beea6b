"""A datamodule that hands out stored activations wherever a phase's frozen prefix allows it, and images elsewhere."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.utils.data import DataLoader

from headstart.backbones.cut import is_cuttable
from headstart.config.settings import CacheSettings
from headstart.data.datamodule import ImageDataModule
from headstart.errors import CacheError
from headstart.model.description import ModelInfo
from headstart.model.phases import Phase
from headstart.model.transfer_model import TransferModel
from headstart.store.building import ShardWriter
from headstart.store.decide import Storing, check_required, decide, too_large, views_in_turn
from headstart.store.decoded import DecodedImages
from headstart.store.entry import Entry
from headstart.store.extract import Kind, Prefix, extract, pooling_of
from headstart.store.key import Arithmetic, activations_key, describe_images, describe_prefix, recipe
from headstart.store.loader import StoredBatches
from headstart.store.pixels import decoding_threads
from headstart.store.provide import Wanted, provide
from headstart.store.record import Record
from headstart.store.store import Store

VIEW_SEED = 0
"""Of augmented views: their own, so that runs with other seeds share them."""

Loader = DataLoader | StoredBatches


class CachedData(pl.LightningDataModule):
    """Loaders for a Trainer over an :class:`ImageDataModule`: same order, same batches, activations where possible.

    The decision is made phase by phase; entries are opened or built when a loader is first asked for, with the model
    where the trainer has put it. Give it to the trainer as its datamodule, in ``validate`` and ``test`` too.

    Args:
        data: prepared and configured.
        model: whose prefix is stored.
        phases: of the strategy.
        info: the model's description.
        settings: what the user asked for.
        folder: of the stores (``paths.cache_dir``).
        channels_last: the module gives images this layout.
        whole_features: something looks at the features themselves (an extra loss), so they are not stored pooled.
        obstacle: why this run cannot use stored activations at all, or None.

    Raises:
        CacheError: ``cache=require``, and they cannot be used.
    """

    def __init__(
        self,
        data: ImageDataModule,
        model: TransferModel,
        phases: Sequence[Phase],
        info: ModelInfo,
        *,
        settings: CacheSettings,
        folder: str | Path,
        channels_last: bool = False,
        whole_features: bool = False,
        obstacle: str | None = None,
    ) -> None:
        self.data = data
        super().__init__()
        self.model, self.phases, self.settings = model, tuple(phases), settings
        self.channels_last = channels_last
        self.store = Store(Path(folder) / "activations", max_bytes=settings.max_bytes)
        self.pixel_store = Store(Path(folder) / "images", max_bytes=settings.max_bytes)
        self._obstacle = obstacle
        chosen = data.augmentation
        augmentation = f"datamodule.augment={chosen.augment}" if chosen.random else None
        self.decisions: tuple[Storing, ...] = tuple(
            decide(
                phase,
                info,
                settings,
                is_cuttable=lambda count: is_cuttable(model.backbone, count),
                augmentation=augmentation,
                obstacle=obstacle,
            )
            for phase in self.phases
        )
        check_required(settings, self.decisions)
        self._views = views_in_turn(settings, self.phases, data.steps_per_epoch) if augmentation is not None else 0
        self._pool = None if whole_features else pooling_of(model)
        self._record = Record()
        self._loaders: dict[tuple[int, str], Loader] = {}
        self._prefixes: dict[int, dict[str, Any]] = {}
        self._trained_on: set[str] = set()

    # The trainer is the images' trainer too: they ask it for rank, epoch and device.
    @property
    def trainer(self) -> pl.Trainer | None:
        """Set by Lightning."""
        return self.data.trainer

    @trainer.setter
    def trainer(self, trainer: pl.Trainer | None) -> None:
        self.data.trainer = trainer

    @property
    def phases_differ(self) -> bool:
        """The loaders change with the phase: the trainer needs ``reload_dataloaders_every_n_epochs=1``."""
        return len({(decision.stages, decision.train) for decision in self.decisions}) > 1

    def train_dataloader(self) -> Any:
        """Of the present phase."""
        loader = self._loader("train")
        sampler: Any = loader.batch_sampler
        progress: Any = self._trainer().fit_loop.epoch_progress
        # Lightning makes the first iterator of an epoch before it sets the sampler's.
        sampler.sampler.set_epoch(progress.current.processed)
        return loader

    def val_dataloader(self) -> Any:
        """Of the present phase."""
        return self._loader("val")

    def test_dataloader(self) -> Any:
        """Of the last phase.

        Raises:
            DataError: there is no test split.
        """
        return self._loader("test")

    def stored(self, split: str) -> StoredBatches | None:
        """Stored activations for the first phase, made if need be, for a training without the trainer's own loop."""
        started = time.perf_counter()
        found = self._stored(split, 0, may_build=True)
        self._record.seconds += time.perf_counter() - started
        return found

    def batches(self, split: str) -> Loader:
        """Of the first phase, made if need be, for a training without the trainer's own loop."""
        return self._open(split, 0, may_build=True)

    def teardown(self, stage: str) -> None:
        """Let go of the entries."""
        self._forget(None)

    # What happened

    @property
    def seconds(self) -> float:
        """Time that this process has spent on opening and building entries."""
        return self._record.seconds

    @property
    def extract_seconds(self) -> float:
        """Cost of all entries used, as if none had been there: a hit counts its recorded build time."""
        return self._record.build_seconds

    def record(self) -> dict[str, Any]:
        """The ``cache`` section of ``result.json``."""
        views, reasons = self.views[0], []
        if views:
            said = f"{views} augmented views of each training image took turns, instead of new ones an epoch"
            reasons.append(said)
        return self._record.as_dict(views, reasons)

    @property
    def views(self) -> tuple[int, int]:
        """How many stored views of a training image take turns (0: none are meant to), and in how many epochs."""
        epochs = sum(p.end_epoch - p.start_epoch for p, d in zip(self.phases, self.decisions, strict=True) if d.train)
        return (self._views, epochs) if epochs else (0, 0)

    def notices(self) -> list[str]:
        """Why training does not run on stored activations, phase by phase; nothing where it does."""
        several = len(self.phases) > 1
        return [
            f"{f'{phase.name}: ' if several else ''}{decision.reason}"
            for phase, decision in zip(self.phases, self.decisions, strict=True)
            if decision.reason and decision.reason not in ("cache=off", "cache=images")
        ]

    # Inside

    def _loader(self, split: str) -> Loader:
        trainer = self._trainer()
        index = self._phase_index(trainer.current_epoch)
        fitting = trainer.state.fn == "fit"
        if not fitting:
            # Another checkpoint may have been loaded, or the strategy may have changed the weights.
            self._forget(None)
        elif (index, split) in self._loaders:
            return self._loaders[index, split]
        else:
            self._forget(index)
        return self._open(split, index, may_build=fitting)

    def _open(self, split: str, index: int, *, may_build: bool) -> Loader:
        started = time.perf_counter()
        loader: Loader | None = self._stored(split, index, may_build=may_build)
        if loader is None:  # one without batches on this process is false, and would be another than the others'
            views = self._views if split == "train" and self.decisions[index].train else 0
            loader = self._images(split, views)
        self._record.seconds += time.perf_counter() - started
        self._loaders[index, split] = loader
        return loader

    def _stored(self, split: str, index: int, *, may_build: bool) -> StoredBatches | None:
        """Stored activations for a phase, or None where there are none or must not be."""
        decision, phase = self.decisions[index], self.phases[index]
        if not (decision.train if split == "train" else decision.evaluation):
            if split == "train":
                self._record.reasons[phase.name] = decision.reason
            return None
        pool = self._pool if decision.stages == len(self.model.backbone.stages) else None
        described = self._prefixes.get(index)
        if described is None:
            described = describe_prefix(self.model.backbone, decision.stages, pool)
            self._prefixes[index] = described
        if may_build:
            self._trained_on.add(described["tensors"])
        elif described["tensors"] not in self._trained_on:
            return None
        prefix = self._prefix(decision.stages, pool)
        views: Sequence[int | None] = range(self._views) if split == "train" and self._views else [None]
        entries = self._entries(prefix, described, split, phase, views)
        if entries is None:
            return None
        kind, loader = Kind.from_dict(dict(entries[0].meta.about["kind"])), self._image_loader(split)
        if views[0] is not None:
            _take_turns(loader.dataset, self._views)
        return StoredBatches(
            "activations",
            entries,
            self.data.targets(split),
            loader,
            decode=lambda rows, epoch, positions: kind.from_rows(rows),
            device=prefix.device,
            constants={"stages": decision.stages},
        )

    def _entries(
        self, prefix: Prefix, described: dict[str, Any], split: str, phase: Phase, views: Sequence[int | None]
    ) -> list[Entry] | None:
        """Open the entry of each view, or build those that are missing; None where they are not worth storing.

        Raises:
            CacheError: they are not, and ``cache=require``.
        """
        trainer, data = self._trainer(), self.data
        assert data.spec is not None
        augmented = views[0] is not None
        dataset = data.dataset(split, augmented=augmented)
        if augmented:
            dataset.seed = VIEW_SEED
        arithmetic = Arithmetic(str(trainer.precision), prefix.device.type, self.channels_last, self.settings.dtype)
        about = {
            "data": data.source_name,
            "split": split,
            "backbone": self.model.backbone.name,
            "after": described["stages"][-1],
            "pooled": prefix.pool is not None,
            "precision": str(trainer.precision),
        }
        recorded: dict[str, dict[str, Any]] = {}
        for view in views:
            seen = None if view is None else {**data.augmentation.as_dict(), "seed": VIEW_SEED, "view": view}
            images = describe_images(data.spec, seen)
            key = activations_key(described, images, arithmetic, dataset.records.digests)
            recorded[key] = {**about, "view": view, "recipe": recipe(described, images, arithmetic)}

        def describe() -> tuple[int, dict[str, Any]]:
            kind = prefix.probe(shape)
            return kind.row_bytes, kind.as_dict()

        def refuse(row_bytes: int, free_bytes: int) -> str | None:
            return too_large(
                self.settings,
                rows=len(dataset) * len(views),
                row_bytes=row_bytes,
                image_bytes=shape[0] * shape[1] * shape[2],
                free_bytes=free_bytes,
            )

        def write(writers: Mapping[str, ShardWriter], part: range) -> None:
            by_view = {recorded[key]["view"]: writer for key, writer in writers.items()}
            extract(prefix, dataset, part, by_view, threads=decoding_threads(trainer.num_devices))

        shape = data.spec.shape
        times = f"{len(views)} augmented views of " if augmented else ""
        what = f"what the network up to {about['after']} makes of {times}{len(dataset)} {split} images"
        wanted = Wanted(
            recorded, len(dataset), describe, write, refuse, what, () if augmented else dataset.records.digests
        )
        found = provide(wanted, self.store, trainer)
        if isinstance(found, str):
            if self.settings.mode == "require":
                raise CacheError(f"cache=require, but {found}; change that, or use cache=auto")
            self._record.reasons[phase.name] = found
            return None
        if trainer.is_global_zero and not all(provided.hit for provided in found):
            self.store.evict(keep=[*(use.key for use in self._record.uses), *recorded])
        for provided in found:
            self._record.add("activations", split, phase, provided)
        return [provided.entry for provided in found]

    def _prefix(self, stages: int, pool: nn.Module | None) -> Prefix:
        plugin = self._trainer().precision_plugin
        return Prefix(
            self.model,
            stages,
            pool,
            next(self.model.parameters()).device,
            plugin.forward_context,
            plugin.convert_input,
            self.channels_last,
            half=self.settings.dtype == "half",
        )

    def _images(self, split: str, views: int) -> Loader:
        """Images: decoded before and only normalised or augmented now, else from their files.

        Where ``views`` of them should have been stored and cannot be, the same ones take turns: what a run learns does
        not depend on the space that there is.
        """
        data, trainer, loader = self.data, self._trainer(), self._image_loader(split)
        if views:
            _take_turns(loader.dataset, views)
        if self.settings.mode == "off" or self.settings.images == "off" or self._obstacle is not None:
            return loader
        decoded = DecodedImages.of(data, split, augmented=split == "train")
        if decoded is None:
            return loader
        if views:
            _take_turns(decoded.dataset, views)
        wanted = decoded.wanted(self.settings, processes=trainer.num_devices)
        found = provide(wanted, self.pixel_store, trainer)
        if isinstance(found, str):
            return loader
        [provided] = found
        if trainer.is_global_zero and not provided.hit:
            self.pixel_store.evict(keep=list(wanted.entries))
        self._record.add("images", split, self.phases[self._phase_index(trainer.current_epoch)], provided)
        device, decode = next(self.model.parameters()).device, decoded.decoder(channels_last=self.channels_last)
        return StoredBatches("images", [provided.entry], data.targets(split), loader, decode=decode, device=device)

    def _image_loader(self, split: str) -> DataLoader:
        loaders = {"train": self.data.train_dataloader, "val": self.data.val_dataloader}
        return loaders.get(split, self.data.test_dataloader)()

    def _phase_index(self, epoch: int) -> int:
        return next((i for i, phase in enumerate(self.phases) if epoch < phase.end_epoch), len(self.phases) - 1)

    def _trainer(self) -> pl.Trainer:
        if self.trainer is None:
            raise RuntimeError("CachedData needs a Trainer; without one use the datamodule it wraps")
        return self.trainer

    def _forget(self, keep: int | None) -> None:
        """Let go of the loaders of all phases but one."""
        for index, split in [place for place in self._loaders if place[0] != keep]:
            loader = self._loaders.pop((index, split))
            if isinstance(loader, StoredBatches):
                loader.close()
        if keep is None:
            self._prefixes.clear()


def _take_turns(dataset: Any, views: int) -> None:
    """Show the views that would have been stored."""
    dataset.seed, dataset.views = VIEW_SEED, views
