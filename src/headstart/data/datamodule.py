"""The datamodule: from a data set to splits, and from a backbone's input spec to batches."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from headstart.data.affine import AffineAugment
from headstart.data.augment import Augment, Augmentation
from headstart.data.dataset import ImageDataset
from headstart.data.images import MAX_PIXELS, report_bad
from headstart.data.input_spec import Fit, InputSpec, pair
from headstart.data.leakage import OnLeak, near_duplicates, without_leaks
from headstart.data.records import Records, Source
from headstart.data.sampler import EpochSampler, EvenBatches, RepeatedBatches, fetching, process_of
from headstart.data.splits import Splitting, all_splits, some_of, some_training
from headstart.data.targets import as_numbers, check_present, describe_targets, only_classes
from headstart.data.transforms import EvalTransform, TrainTransform, checked_spec
from headstart.errors import DataError
from headstart.system.digest_memory import combined_digest
from headstart.system.options import (
    Above,
    AtLeast,
    AtMost,
    Below,
    FromCode,
    Later,
    NotInResult,
    OnlyWith,
    StepsOnly,
    checked,
)

SPLITS = ("train", "val", "test")


class ImageDataModule(pl.LightningDataModule, ABC):
    """Base of all datamodules. A subclass gives :meth:`load`; see there.

    Life cycle: :meth:`prepare` fixes splits and classes, :meth:`configure` takes the backbone's input spec, then the
    loaders are ready. A batch is a dict with ``images`` ``(B, C, H, W)`` float32, ``targets`` ``(B,)`` and ``index``
    ``(B,)``, the position in the split. Targets are class numbers; of labels and numbers they are ``(B, columns)``
    float32. Use with ``Trainer(use_distributed_sampler=False)``.

    Args:
        batch_size: images a training step and process.
        seed: of the order of images and their augmentation.
        image_size: pixels, one number or [height, width]; None: the size of the weights.
        task: what the targets are for; ``regression`` takes class names that are numbers as numbers.
        augment: ``none`` (as in evaluation), ``light`` (mild random crop, flip), ``randaug`` or ``keras``.
        flip: whether augmentation may mirror images left to right.
        min_crop: the random crop of ``light`` and ``randaug`` keeps at least this share of the area.
        shear_range: of ``keras``, in degrees; None: 0.
        zoom_range: of ``keras``, as a share; None: 0.
        train_size: pixels of augmented training images; None: those of evaluation.
        kept_size: pixels of the decoded images that ``light`` crops from; None: 8/7 of what it shows.
        fit: how an image of another shape becomes the network's, in evaluation and training: ``crop``, ``squash`` or
            ``pad`` (:meth:`InputSpec.fitted`); None: as the weights expect.
        classes: only these classes; None: all.
        val_fraction: share carved for validation where the data set has no such split.
        test_fraction: share carved for testing where the data set has no such split; 0: no test split.
        shots: this many training images a class; None: all.
        fraction: this share of each class's training images; None: all.
        split_seed: of everything carved; separate from ``seed``.
        folds: of a cross-validation; None: none.
        fold: the one that is the test split, from 0.
        group_pattern: a regular expression; images in whose ids it finds the same are in one split.
        on_leak: what to do where the same image is in two splits: ``error``, ``drop`` it from the training or
            ``ignore`` it, with a warning; None: ``error``, for published sets with splits of their own ``ignore``.
        sampler: ``balanced`` shows every class equally often (:class:`headstart.data.sampler.EpochSampler`); None:
            every image once an epoch.
        steps_per_epoch: batches an epoch, from as many passes over the images as it takes; None: one pass.
        val_steps: validate on at most this many batches, a fixed random choice of images; None: on all.
        num_workers: processes that load images; ``auto`` by cores, kind and amount of data.
        pin_memory: ``auto``: where batches go to a CUDA device.
        on_bad_image: an unreadable image is left out and reported (``skip``) or an error (``raise``).
        drop_last: leave out a last, smaller training batch.
        eval_batch_size: None: ``batch_size``.
        max_pixels: of an image file; a larger one is treated as unreadable; None: 80 million.
        memory_path: where file digests are remembered; None: in the user's cache folder.
    """

    usual_on_leak: ClassVar[OnLeak] = "error"

    @checked("datamodule", DataError)
    def __init__(
        self,
        *,
        batch_size: Annotated[int, AtLeast(1)],
        seed: Annotated[int, AtLeast(0)],
        task: Annotated[str, FromCode] = "auto",
        image_size: Annotated[int | tuple[int, int] | None, AtLeast(1)] = None,
        augment: Annotated[Augment, StepsOnly("none")] = "light",
        flip: Annotated[bool, StepsOnly(False, harmless=True)] = True,
        min_crop: Annotated[float, Above(0), AtMost(1), StepsOnly(1.0, harmless=True)] = 0.5,
        shear_range: Annotated[
            float | None, AtLeast(0), Below(90), OnlyWith("augment", ("keras",)), Later, StepsOnly(None)
        ] = None,
        zoom_range: Annotated[
            float | None, AtLeast(0), Below(1), OnlyWith("augment", ("keras",)), Later, StepsOnly(None)
        ] = None,
        train_size: Annotated[
            int | tuple[int, int] | None, AtLeast(8), OnlyWith("augment", ("light", "randaug")), StepsOnly(None)
        ] = None,
        kept_size: Annotated[int | None, AtLeast(8), OnlyWith("augment", ("light",)), StepsOnly(None)] = None,
        fit: Annotated[Fit | None, Later] = None,
        classes: Annotated[Sequence[str | int] | None, AtLeast(0), Later] = None,
        val_fraction: Annotated[float, AtLeast(0), Below(1)] = 0.2,
        test_fraction: Annotated[float, AtLeast(0), Below(1)] = 0.0,
        shots: Annotated[int | None, AtLeast(1)] = None,
        fraction: Annotated[float | None, Above(0), AtMost(1)] = None,
        split_seed: Annotated[int, AtLeast(0)] = 0,
        folds: Annotated[int | None, AtLeast(2), Later] = None,
        fold: Annotated[int | None, AtLeast(0), Later] = None,
        group_pattern: Annotated[str | None, Later] = None,
        on_leak: Annotated[OnLeak | None, Later] = None,
        num_workers: Annotated[Literal["auto"] | int, AtLeast(0), NotInResult] = "auto",
        pin_memory: Annotated[Literal["auto"] | bool, NotInResult] = "auto",
        on_bad_image: Literal["skip", "raise"] = "skip",
        drop_last: Annotated[bool, StepsOnly(False)] = False,
        eval_batch_size: Annotated[int | None, AtLeast(1)] = None,
        sampler: Annotated[Literal["balanced"] | None, Later, StepsOnly(None)] = None,
        steps_per_epoch: Annotated[int | None, AtLeast(1), Later, StepsOnly(None)] = None,
        val_steps: Annotated[int | None, AtLeast(1), Later] = None,
        max_pixels: Annotated[int | None, AtLeast(1), Later] = None,
        memory_path: Annotated[str | Path | None, FromCode] = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.balanced, self.steps_per_epoch, self.val_steps = sampler == "balanced", steps_per_epoch, val_steps
        self.seed, self.split_seed = seed, split_seed
        self.image_size = pair(image_size)
        self.augmentation = Augmentation(
            augment, flip, min_crop, shear_range, zoom_range, pair(train_size), kept_size, fit
        )
        self.wanted_classes = classes
        self.splitting = Splitting(val_fraction, test_fraction, split_seed, folds, fold, group_pattern)
        self.on_leak, self.shots, self.fraction = on_leak, shots, fraction
        self.num_workers, self.pin_memory, self.drop_last = num_workers, pin_memory, drop_last
        self.on_bad_image, self.max_pixels = on_bad_image, max_pixels or MAX_PIXELS
        self.memory_path = memory_path
        self.spec: InputSpec | None = None
        self._source: Source | None = None
        self._splits: dict[str, Records] = {}
        self._carved: list[str] = []
        self._leaked: dict[str, int] = {}
        self._near: dict[str, int] | None = None

    @abstractmethod
    def load(self) -> Source:
        """Find the images with their labels and whatever splits the data set has; called once."""

    def labelled(self, splits: dict[str, Records], source: Source) -> dict[str, Records]:
        """The splits, with fewer training images where that is asked for; every class is in them, else a DataError."""
        splits["train"] = some_training(
            splits["train"], source, shots=self.shots, fraction=self.fraction, split_seed=self.split_seed
        )
        check_present(splits, source)
        return splits

    # --- what the data are -------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Load, check and split. Calling it again does nothing.

        Raises:
            DataError: the data are missing or cannot be used as asked.
        """
        if self._source is not None:
            return
        source = self.load()
        if (source.kind == "masks") != (self.task == "segmentation"):
            have = "masks" if source.kind == "masks" else "no masks"
            raise DataError(
                f"task={self.task} does not fit: {source.name} has {have}; a class for each pixel needs "
                "task=segmentation head=dense and datamodule=shapes, masks or masks_csv"
            )
        if source.bad:
            report_bad(source.bad, self.on_bad_image)
        if self.wanted_classes is not None:
            source = only_classes(source, self.wanted_classes)
        splits = all_splits(source, self.splitting)
        carved = [split for split in splits if split not in source.splits]
        splits, leaked = without_leaks(splits, source.name, self.on_leak or self.usual_on_leak)
        splits = self.labelled(splits, source)
        if self.val_steps is not None:
            splits["val"] = some_of(splits["val"], source, self.val_steps * self.eval_batch_size, self.split_seed)
        if self.task == "regression" and source.kind == "classes":
            source, splits = as_numbers(source, splits)
        if self.balanced and source.kind != "classes":
            raise DataError(
                f"datamodule.sampler=balanced needs one class an image; {source.name} has {source.kind}. Leave it out."
            )
        if self.drop_last and len(splits["train"]) < self.batch_size:
            raise DataError(
                f"datamodule.drop_last=true leaves nothing of {len(splits['train'])} training images at "
                f"datamodule.batch_size={self.batch_size}; lower it."
            )
        self._source, self._splits, self._carved, self._leaked = source, splits, carved, leaked
        self._near = near_duplicates(splits, self.memory_path)

    @property
    def source_name(self) -> str:
        """Of the data set."""
        return self._prepared().name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the targets; of labels or quantities, in the order of the columns."""
        return self._prepared().classes

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images in each split there is."""
        self._prepared()
        return {split: len(self._splits[split]) for split in SPLITS if split in self._splits}

    @property
    def has_test(self) -> bool:
        """Whether there is a test split; none is ever invented."""
        return "test" in self.sizes

    def records(self, split: str) -> Records:
        """The images of a split with their ids and targets.

        Raises:
            DataError: there is no such split.
        """
        sizes = self.sizes
        if split not in sizes:
            raise DataError(
                f"{self._prepared().name} has no {split} split (it has {', '.join(sizes)})"
                + ("; datamodule.test_fraction=0.2 carves one from the training images." if split == "test" else ".")
            )
        return self._splits[split]

    def targets(self, split: str) -> np.ndarray:
        """Class positions ``(N,)`` of a split; labels or numbers ``(N, columns)``."""
        return self.records(split).targets

    def summary(self) -> dict[str, Any]:
        """What the data were, in plain values, for ``result.json``.

        ``fingerprint`` covers classes and every image of every split; ``split_fingerprints`` do so split by split,
        so that runs with other ``shots`` can be seen to share their validation and test images.
        """
        source = self._prepared()
        prints = {split: self._splits[split].content_digest for split in self.sizes}
        return {
            "name": source.name,
            "fingerprint": combined_digest([("classes", "/".join(source.classes)), *prints.items()]),
            "split_fingerprints": prints,
            "content": source.content_digest,
            "classes": list(source.classes),
            "sizes": self.sizes,
            **describe_targets({split: self._splits[split] for split in self.sizes}, source),
            "carved": list(self._carved),
            "split_seed": self.split_seed,
            "fold": self.splitting.fold,
            "folds": self.splitting.folds,
            "shots": self.shots,
            "fraction": self.fraction,
            "ignored": dict(source.ignored),
            "skipped": [dict(entry) for entry in source.bad],
            "skipped_count": len(source.bad),
            "shared_between_splits": dict(self._leaked),
            "near_duplicates": None if self._near is None else dict(self._near),
            **source.notes,
        }

    # --- what the backbone gets --------------------------------------------------------------------------------

    def configure(self, input_spec: InputSpec) -> InputSpec:
        """Take what the backbone expects; ``image_size`` replaces its height and width, ``fit`` its crop.

        Where every pixel is predicted, images are shown whole: resized to this size, nothing cut off.

        Returns: the spec in force.
        """
        if self.image_size is not None:
            input_spec = replace(input_spec, height=self.image_size[0], width=self.image_size[1])
        fit = self.augmentation.fit
        if self.task == "segmentation":
            if self.augmentation.augment == "randaug":
                raise DataError("datamodule.augment=randaug would move images without their masks; use light or none.")
            fit = "squash"
        self.spec = checked_spec(input_spec.fitted(fit))
        self.train_transform  # noqa: B018 - an impossible choice is told now, not in the first epoch
        return self.spec

    @property
    def eval_transform(self) -> EvalTransform:
        """From a decoded image to ``(C, H, W)``, as in evaluation; prediction uses the same."""
        return EvalTransform(self._configured())

    @property
    def train_transform(self) -> EvalTransform | TrainTransform | AffineAugment:
        """From a decoded image to ``(C, H, W)``, augmented; or of kept images, a batch at a time."""
        return self.augmentation.transform(self._configured())

    def dataset(self, split: str, *, augmented: bool = False) -> ImageDataset:
        """A split as a torch data set, as evaluation sees it unless ``augmented``."""
        return ImageDataset(
            self.records(split),
            self.train_transform if augmented else self.eval_transform,
            channels=self._configured().channels,
            seed=self.seed,
            max_pixels=self.max_pixels,
        )

    def train_dataloader(self, *, batch_size: int | None = None, drop_last: bool | None = None) -> DataLoader:
        """Augmented training images, in an order that seed and epoch alone decide.

        Args:
            batch_size: None: the datamodule's own.
            drop_last: None: the datamodule's own.
        """
        batch_size = self.batch_size if batch_size is None else batch_size
        drop_last = self.drop_last if drop_last is None else drop_last
        rank, world_size = process_of(self.trainer)
        shuffled = EpochSampler(
            self.sizes["train"],
            seed=self.seed,
            shuffle=True,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
            classes=self.targets("train") if self.balanced else None,
        )
        if self.trainer is not None:
            # Lightning makes the first iterator of a resumed fit before it calls set_epoch.
            shuffled.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
        if self.steps_per_epoch is not None:
            stream = RepeatedBatches(shuffled, batch_size, steps=self.steps_per_epoch, drop_last=drop_last)
            return DataLoader(self.dataset("train", augmented=True), batch_sampler=stream, **self._loading("train"))
        return DataLoader(
            self.dataset("train", augmented=True),
            batch_size=batch_size,
            sampler=shuffled,
            drop_last=drop_last,
            **self._loading("train"),
        )

    def val_dataloader(self) -> DataLoader:
        """Validation images in their own order."""
        return self._eval_dataloader("val")

    def test_dataloader(self) -> DataLoader:
        """Test images in their own order.

        Raises:
            DataError: there is no test split.
        """
        return self._eval_dataloader("test")

    def setup(self, stage: str) -> None:
        """Lightning's hook; the same as :meth:`prepare`."""
        self.prepare()

    def _eval_dataloader(self, split: str) -> DataLoader:
        dataset = self.dataset(split)
        rank, world_size = process_of(self.trainer)
        sampler = EpochSampler(len(dataset), seed=self.seed, shuffle=False, rank=rank, world_size=world_size)
        if world_size == 1:
            return DataLoader(dataset, batch_size=self.eval_batch_size, sampler=sampler, **self._loading(split))
        return DataLoader(dataset, batch_sampler=EvenBatches(sampler, self.eval_batch_size), **self._loading(split))

    # --- inside ------------------------------------------------------------------------------------------------

    def _prepared(self) -> Source:
        self.prepare()
        assert self._source is not None
        return self._source

    def _configured(self) -> InputSpec:
        if self.spec is None:
            raise RuntimeError("the datamodule needs configure(input_spec) with the backbone's spec first")
        return self.spec

    def _loading(self, split: str) -> dict[str, Any]:
        return fetching(
            self.trainer,
            split,
            self.sizes[split],
            from_files=not self._splits[split].decoded,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            seed=self.seed,
        )
