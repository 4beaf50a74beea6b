"""Well-known data sets through torchvision, with the splits that others report on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from headstart.data.datamodule import ImageDataModule
from headstart.data.folder import file_source
from headstart.data.records import Records, Source, array_records, content_of
from headstart.data.splits import ranked_by_class, vtab_1k
from headstart.data.targets import check_present
from headstart.errors import DataError
from headstart.system.folders import user_cache_dir
from headstart.system.network import downloading
from headstart.system.options import Later, NotInResult, checked

Name = Literal[
    "aircraft", "caltech101", "cars", "cifar10", "cifar100", "dtd", "eurosat", "flowers102", "food101", "pets", "svhn"
]
Metric = Literal["acc", "balanced_acc"]


@dataclass(frozen=True)
class Published:
    """A data set of torchvision.

    Attributes:
        dataset: torchvision's name of its class.
        there: what is in ``data_dir`` once it was downloaded, to see that it is.
        megabytes: of the download.
        url: an address of the download by torchvision's class, to try whether it can be reached; None: it has none any
            more.
        splits: what torchvision's class is given for each.
        metric: that others report: the share of right answers, or its mean over the classes.
        shots: a class has this many training images and its others are for testing, drawn by ``split_seed``; None: the
            splits are published.
    """

    dataset: str
    there: str
    megabytes: int
    url: Callable[[Any], str] | None
    splits: Mapping[str, Mapping[str, Any]]
    metric: Metric = "acc"
    shots: int | None = None


def _named(*splits: str) -> dict[str, dict[str, Any]]:
    return {split: {"split": split} for split in splits}


_CIFAR = {"train": {"train": True}, "test": {"train": False}}

SETS: Mapping[str, Published] = {
    # 10,000 photographs of aeroplanes in 100 variants (Maji et al., arXiv:1306.5151, 2013); for research.
    "aircraft": Published(
        "FGVCAircraft",
        "fgvc-aircraft-2013b/data",
        2750,
        lambda one: str(one._URL),
        _named("train", "val", "test"),
        "balanced_acc",
    ),
    # 8,677 photographs in 101 classes without the background's (Fei-Fei et al., 2004); CC BY 4.0.
    "caltech101": Published(
        "Caltech101",
        "caltech101/101_ObjectCategories",
        137,
        lambda one: "https://data.caltech.edu/records/mzrjq-6wc02",
        {"train": {}},
        "balanced_acc",
        shots=30,
    ),
    # 16,185 photographs of cars in 196 models (Krause et al., 2013); for research. Its authors' server has gone.
    "cars": Published("StanfordCars", "stanford_cars/devkit", 1960, None, _named("train", "test")),
    # 60,000 photographs of 32 by 32 pixels in 10 classes (Krizhevsky, 2009); licence not stated.
    "cifar10": Published("CIFAR10", "cifar-10-batches-py", 163, lambda one: str(one.url), _CIFAR),
    # The same in 100 classes.
    "cifar100": Published("CIFAR100", "cifar-100-python", 161, lambda one: str(one.url), _CIFAR),
    # 5,640 photographs of textures in 47 classes, the first of ten partitions (Cimpoi et al., CVPR 2014); for research.
    "dtd": Published("DTD", "dtd/dtd", 600, lambda one: str(one._URL), _named("train", "val", "test")),
    # 27,000 pictures of land from satellites, 64 by 64 pixels in 10 classes (Helber et al., 2019); MIT.
    "eurosat": Published(
        "EuroSAT", "eurosat/2750", 90, lambda one: "https://huggingface.co/datasets/torchgeo/eurosat", {"train": {}}
    ),
    # 8,189 photographs in 102 classes, 10 a class to train on and 10 to validate (Nilsback and Zisserman, 2008).
    "flowers102": Published(
        "Flowers102",
        "flowers-102/jpg",
        329,
        lambda one: str(one._download_url_prefix),
        _named("train", "val", "test"),
        "balanced_acc",
    ),
    # 101,000 photographs of dishes in 101 classes (Bossard et al., ECCV 2014); licence not stated.
    "food101": Published("Food101", "food-101/images", 4997, lambda one: str(one._URL), _named("train", "test")),
    # 7,349 photographs of cats and dogs in 37 breeds (Parkhi et al., CVPR 2012); CC BY-SA 4.0.
    "pets": Published(
        "OxfordIIITPet",
        "oxford-iiit-pet/images",
        774,
        lambda one: str(one._RESOURCES[0][0]),
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
        "balanced_acc",
    ),
    # 99,289 house numbers of 32 by 32 pixels, 10 digits (Netzer et al., 2011); not for commercial use.
    "svhn": Published(
        "SVHN", "train_32x32.mat", 247, lambda one: str(one.split_list["train"][0]), _named("train", "test")
    ),
}


class Torchvision(ImageDataModule):
    """One of :data:`SETS`, read from disk as torchvision stores it, or downloaded.

    Splits are the published ones. What a set lacks is carved: validation images from the training images, and of
    EuroSAT, which has no splits, testing images too. Of Caltech-101 each class has 30 training images, as its authors
    propose.

    Args:
        name: of the set.
        data_dir: where it is kept; None: ``data`` in the user's cache folder.
        download: fetch it where it is not there.
        vtab_1k: the rule of VTAB-1k for its 1,000 labelled images (:func:`headstart.data.splits.vtab_1k`): ``choose``
            trains on 800 and validates on 200, to choose by; ``final`` trains on all of them with what was chosen;
            None: the whole splits.
        **choices: those of :class:`ImageDataModule`.
    """

    # Published with these splits: other people's numbers have the same images in two of them.
    usual_on_leak = "ignore"
    name: str

    @checked("datamodule", DataError)
    def __init__(
        self,
        *,
        name: Name,
        data_dir: str | Path | None = None,
        download: Annotated[bool, NotInResult] = True,
        vtab_1k: Annotated[Literal["choose", "final"] | None, Later] = None,
        **choices: Any,
    ) -> None:
        super().__init__(**choices)
        if name not in SETS:
            raise DataError(f"datamodule.name={name} is none of {', '.join(SETS)}")
        self.name, self.about, self.download, self.rule = name, SETS[name], download, vtab_1k
        self.data_dir = Path(data_dir).expanduser() if data_dir else user_cache_dir() / "data"

    def load(self) -> Source:
        """Open what is there, or download it first.

        Raises:
            DataError: it is not there and cannot be downloaded (told within seconds), or should not be.
        """
        datasets = self._opened()
        first = datasets["train"]
        named = getattr(first, "classes", None) or getattr(first, "categories", None) or range(10)
        classes = tuple(map(str, named))
        if hasattr(first, "data"):
            splits = {split: _pixels(dataset, f"{self.name}/{split}") for split, dataset in datasets.items()}
            digest = content_of(splits)
            source = Source(name=self.name, splits=splits, classes=classes, content_digest=digest)
        else:
            source = self._file_source({split: list(_files(dataset)) for split, dataset in datasets.items()}, classes)
        if self.about.shots is not None:
            source = replace(source, splits=self._drawn(source.splits["train"], self.about.shots))
        # VTAB's score is the share of right answers for every set.
        return replace(source, notes={**source.notes, "usual_metric": "acc" if self.rule else self.about.metric})

    def labelled(self, splits: dict[str, Records], source: Source) -> dict[str, Records]:
        """By the rule of VTAB-1k where that is asked for; it need not leave every class in validation.

        Raises:
            DataError: there are fewer images than it takes, or ``shots`` or ``fraction`` ask for something else.
        """
        if self.rule is None:
            return super().labelled(splits, source)
        for key, value in (("shots", self.shots), ("fraction", self.fraction)):
            if value is not None:
                raise DataError(
                    f"datamodule.{key}={value} and datamodule.vtab_1k={self.rule} both say how many images are "
                    "labelled; leave one of them at null"
                )
        check_present(splits, source)
        return vtab_1k(splits, self.name, split_seed=self.split_seed, final=self.rule == "final")

    def _opened(self) -> dict[str, Any]:
        try:
            return self._open(download=False)
        except (RuntimeError, OSError):
            pass
        where = f"datamodule={self.name} is not in {self.data_dir}"
        if self.about.url is None:
            raise DataError(
                f"{where} and cannot be downloaded any more, its authors' server has gone; put a copy of it there (as "
                f"{self.about.there}), or name another folder with paths.data_dir=PATH"
            )
        if not self.download:
            raise DataError(
                f"{where}; datamodule.download=true fetches it ({self.about.megabytes:,} MB), paths.data_dir=PATH "
                "names another folder"
            )
        from torchvision import datasets

        url = self.about.url(getattr(datasets, self.about.dataset))
        with downloading(self.name, url, self.data_dir, megabytes=self.about.megabytes):
            return self._open(download=True)

    def _open(self, *, download: bool) -> dict[str, Any]:
        """Torchvision's data sets by split; RuntimeError where they are not on disk."""
        from torchvision import datasets

        if not download and not (self.data_dir / self.about.there).exists():
            raise RuntimeError(f"{self.about.there} is not there")
        kind = getattr(datasets, self.about.dataset)
        return {
            split: kind(str(self.data_dir), download=download, **given) for split, given in self.about.splits.items()
        }

    def _file_source(self, files: Mapping[str, Iterable[tuple[Path, int]]], classes: tuple[str, ...]) -> Source:
        listed = [
            (split, path.relative_to(self.data_dir).as_posix(), target)
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
        return file_source(self.name, self.data_dir, listed=listed, classes=classes, memory_path=self.memory_path)

    def _drawn(self, records: Records, shots: int) -> dict[str, Records]:
        ranked = ranked_by_class(records.ids, records.targets, self.splitting.split_seed).values()
        parts = {
            "train": [position for order in ranked for position in order[:shots]],
            "test": [position for order in ranked for position in order[shots:]],
        }
        return {split: records.take(np.array(sorted(places), dtype=np.int64)) for split, places in parts.items()}


def _pixels(dataset: Any, prefix: str) -> Records:
    """Of a set that torchvision holds in memory."""
    targets = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    images = dataset.data if dataset.data.shape[-1] == 3 else np.ascontiguousarray(dataset.data.transpose(0, 2, 3, 1))
    return array_records(images, np.array(targets, dtype=np.int64), prefix)


def _files(dataset: Any) -> Iterable[tuple[Path, int]]:
    """Paths and classes of a set of files, whatever torchvision calls them there."""
    if hasattr(dataset, "categories"):
        folder = Path(dataset.root) / "101_ObjectCategories"
        found = [
            (folder / dataset.categories[target] / f"image_{number:04d}.jpg", target)
            for number, target in zip(dataset.index, dataset.y, strict=True)
        ]
    elif samples := getattr(dataset, "samples", None) or getattr(dataset, "_samples", None):
        found = samples
    else:
        paths = dataset._images if hasattr(dataset, "_images") else dataset._image_files
        found = list(zip(paths, dataset._labels, strict=True))
    return ((Path(path), int(target)) for path, target in found)


class CIFAR10(Torchvision):
    """Of :data:`SETS`; the name by which earlier runs know it."""

    def __init__(self, **choices: Any) -> None:
        super().__init__(name="cifar10", **choices)


class Flowers102(Torchvision):
    """Of :data:`SETS`; the name by which earlier runs know it."""

    def __init__(self, **choices: Any) -> None:
        super().__init__(name="flowers102", **choices)


class Pets(Torchvision):
    """Of :data:`SETS`; the name by which earlier runs know it."""

    def __init__(self, **choices: Any) -> None:
        super().__init__(name="pets", **choices)
