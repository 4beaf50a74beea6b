"""Well-known data sets through torchvision, downloaded on first use."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.datamodule import ImageDataModule
from headstart.data.folder import file_source
from headstart.data.records import Source, array_records
from headstart.errors import DataError
from headstart.system.digest_memory import combined_digest
from headstart.system.folders import user_cache_dir
from headstart.system.network import downloading


class TorchvisionDataModule(ImageDataModule):
    """Base of the data sets that torchvision knows how to fetch.

    Args:
        data_dir: where they are kept; None: ``data`` in the user's cache folder.
        **choices: those of :class:`ImageDataModule`.
    """

    # Published with these splits: other people's numbers have the same images in two of them.
    usual_on_leak = "ignore"
    name: str
    megabytes: int

    def __init__(self, *, data_dir: str | Path | None = None, **choices: Any) -> None:
        super().__init__(**choices)
        self.data_dir = Path(data_dir).expanduser() if data_dir else user_cache_dir() / "data"

    def load(self) -> Source:
        """Open what is there, or download it first.

        Raises:
            DataError: it is not there and cannot be downloaded; told within seconds.
        """
        return self._source_of(self._opened())

    @property
    @abstractmethod
    def url(self) -> str:
        """An address of the download, to try whether it can be reached."""

    @abstractmethod
    def _open(self, *, download: bool) -> dict[str, Any]:
        """The data sets of torchvision by split; RuntimeError where they are not on disk."""

    @abstractmethod
    def _source_of(self, datasets: dict[str, Any]) -> Source:
        """Images and labels of torchvision's data sets."""

    def _opened(self) -> dict[str, Any]:
        try:
            return self._open(download=False)
        except (RuntimeError, OSError):
            pass
        with downloading(self.name, self.url, self.data_dir, megabytes=self.megabytes):
            return self._open(download=True)

    def _file_source(self, files: Mapping[str, Iterable[tuple[Path, int]]], classes: Iterable[str]) -> Source:
        listed = [
            (split, Path(path).relative_to(self.data_dir).as_posix(), int(target))
            for split, entries in files.items()
            for path, target in entries
        ]
        missing = [relative for _, relative, _ in listed if not (self.data_dir / relative).is_file()]
        if missing:
            folder = self.data_dir / Path(missing[0]).parts[0]
            raise DataError(
                f"datamodule={self.name}: {len(missing)} of {len(listed)} images are missing, {missing[0]} first; the "
                f"download was interrupted. Remove {folder} and run again."
            )
        return file_source(
            self.name, self.data_dir, listed=listed, classes=tuple(classes), memory_path=self.memory_path
        )


class CIFAR10(TorchvisionDataModule):
    """CIFAR-10: 60,000 photographs of 32 by 32 pixels in 10 classes.

    Tree: ``data_dir/cifar-10-batches-py/{data_batch_1 … data_batch_5, test_batch, batches.meta}``. Licence: none
    stated. Reference: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    50,000 images to train on, from which validation images are carved, and 10,000 to test.
    """

    name, megabytes = "cifar10", 163

    @property
    def url(self) -> str:
        """Of the archive."""
        from torchvision.datasets import CIFAR10 as Dataset  # noqa: N811

        return Dataset.url

    def _open(self, *, download: bool) -> dict[str, Any]:
        from torchvision.datasets import CIFAR10 as Dataset  # noqa: N811

        return {
            split: Dataset(str(self.data_dir), train=split == "train", download=download) for split in ("train", "test")
        }

    def _source_of(self, datasets: dict[str, Any]) -> Source:
        splits = {
            split: array_records(dataset.data, np.array(dataset.targets, dtype=np.int64), f"{self.name}/{split}")
            for split, dataset in datasets.items()
        }
        return Source(
            name=self.name,
            splits=splits,
            classes=tuple(datasets["train"].classes),
            content_digest=combined_digest((split, records.content_digest) for split, records in splits.items()),
        )


class Flowers102(TorchvisionDataModule):
    """Oxford Flowers: 8,189 photographs in 102 classes, 10 images a class to train on and 10 to validate.

    Tree: ``data_dir/flowers-102/{jpg/image_00001.jpg …, imagelabels.mat, setid.mat}``. Licence: none stated, for
    research. Reference: M.-E. Nilsback and A. Zisserman, "Automated Flower Classification over a Large Number of
    Classes", ICVGIP 2008.
    """

    name, megabytes = "flowers102", 329

    @property
    def url(self) -> str:
        """Of the folder of archives."""
        from torchvision.datasets import Flowers102 as Dataset

        return Dataset._download_url_prefix

    def _open(self, *, download: bool) -> dict[str, Any]:
        from torchvision.datasets import Flowers102 as Dataset

        return {split: Dataset(str(self.data_dir), split, download=download) for split in ("train", "val", "test")}

    def _source_of(self, datasets: dict[str, Any]) -> Source:
        files = {split: zip(item._image_files, item._labels, strict=True) for split, item in datasets.items()}
        return self._file_source(files, datasets["train"].classes)


class Pets(TorchvisionDataModule):
    """Oxford-IIIT Pet: 7,349 photographs of cats and dogs in 37 breeds.

    Tree: ``data_dir/oxford-iiit-pet/{images/*.jpg, annotations/{trainval,test}.txt}``. Licence: CC BY-SA 4.0.
    Reference: O. M. Parkhi et al., "Cats and Dogs", CVPR 2012.

    3,680 images to train on, from which validation images are carved, and 3,669 to test.
    """

    name, megabytes = "pets", 774

    @property
    def url(self) -> str:
        """Of the images."""
        from torchvision.datasets import OxfordIIITPet as Dataset

        return Dataset._RESOURCES[0][0]

    def _open(self, *, download: bool) -> dict[str, Any]:
        from torchvision.datasets import OxfordIIITPet as Dataset

        names = {"train": "trainval", "test": "test"}
        return {split: Dataset(str(self.data_dir), name, download=download) for split, name in names.items()}

    def _source_of(self, datasets: dict[str, Any]) -> Source:
        files = {split: zip(item._images, item._labels, strict=True) for split, item in datasets.items()}
        return self._file_source(files, datasets["train"].classes)
