"""Image data sets that the ``datasets`` library of Hugging Face reads."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.datamodule import ImageDataModule
from headstart.data.manifest import KIND_OF_TASK, cell, parse_targets
from headstart.data.records import Records, Source, content_of
from headstart.data.scan import checked_root, split_of
from headstart.data.sources.encoded import Encoded, looked_at, readable
from headstart.errors import DataError
from headstart.system.digest_memory import combined_digest, file_digests
from headstart.system.extras import require_extra
from headstart.system.network import reachable
from headstart.system.regular import check_regular

_USUAL_LABELS = ("label", "labels", "target", "class")


@dataclass(frozen=True, slots=True)
class Row(Encoded):
    """An image in a table of Arrow.

    Attributes:
        table: with a single column, of images that are not decoded.
        index: of the row.
        max_pixels: as in the base class.
    """

    table: Any
    index: int
    max_pixels: int

    def content(self) -> bytes:
        """Of the row, or of the file that it names."""
        [value] = self.table[self.index].values()
        if value["bytes"] is not None:
            return value["bytes"]
        check_regular(value["path"])
        return Path(value["path"]).read_bytes()


class HuggingFace(ImageDataModule):
    """A data set in a folder or on the hub. Licence and reference are on its card.

    A folder holds what ``save_to_disk`` wrote, Parquet files, or images in class folders, whatever ``load_dataset``
    reads; nothing in it is executed. Splits are its own, and what it lacks is carved with ``split_seed``. Images stay
    encoded in the library's files and are read when they are needed.

    Args:
        root: the folder; or
        name: on the hub, as ``owner/name``. It is kept in the library's own cache.
        config: of a data set that has several.
        revision: of the hub's repository: a branch, tag or commit; None: the latest.
        image_column: None: the only one with images.
        label_column: of the targets; None: the only one with classes, else one that is called ``label``.
        separator: between several labels in one text.
        **choices: those of :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        name: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        separator: str = "|",
        **choices: Any,
    ) -> None:
        super().__init__(**choices)
        if (root is None) == (name is None):
            raise DataError(
                "datamodule=hf reads a folder (datamodule.root=PATH) or a data set of the hub "
                "(datamodule.name=OWNER/NAME); give one of them"
            )
        self.root = None if root is None else checked_root(root)
        self.name, self.config, self.revision = name, config, revision
        self.image_column, self.label_column, self.separator = image_column, label_column, separator

    def load(self) -> Source:
        """Open the data set, then leave out what cannot be decoded.

        Raises:
            DataError: the library is missing, the data set cannot be had, or its columns do not say what is what.
        """
        require_extra("datamodule=hf", "hf", error=DataError)
        tables, ignored = _by_split(self._opened(), self._what)
        first = next(iter(tables.values())).features
        image_column, label_column = self._image_column(first), self._label_column(first)
        labelled = {split: table for split, table in tables.items() if _has_labels(table, label_column)}
        notes: dict[str, object] = {"ignored_splits": [*ignored, *(split for split in tables if split not in labelled)]}
        kind = KIND_OF_TASK.get(self.task, "classes")
        if kind == "classes" and hasattr(first[label_column], "feature"):
            raise DataError(f"{self._what} has several {label_column} an image; use task=multilabel")
        texts = [text for split, table in labelled.items() for text in self._texts(split, table, label_column)]
        targets, classes = parse_targets(self._what, texts, [label_column], kind, self.separator)
        names = _class_names(first[label_column])
        if kind == "classes" and names:  # in the order of the data set, those without images included
            targets, classes = np.array([names.index(classes[target]) for target in targets]), tuple(names)
        splits: dict[str, Records] = {}
        bad: list[dict[str, str]] = []
        start = 0
        total = sum(map(len, labelled.values()))
        for split, table in labelled.items():
            part, start = targets[start : start + len(table)], start + len(table)
            splits[split], damaged = self._records(split, table, image_column, part, total)
            bad += damaged
        return Source(
            name=str(self.name or (self.root and self.root.resolve().name)),
            splits=splits,
            classes=classes,
            content_digest=content_of(splits),
            bad=bad,
            notes=notes if notes["ignored_splits"] else {},
            kind=kind,
        )

    def find(self, ids: Collection[str]) -> dict[str, Row]:
        """Those of the images that are there, by their ids; the others are not read, and the hub is not asked.

        Raises:
            DataError: the data set is not here any more.
        """
        tables, _ = _by_split(self._opened(online=False), self._what)
        found: dict[str, Row] = {}
        for split, table in tables.items():
            rows = self._rows(table, self._image_column(table.features))
            known = dict(zip(_ids(split, len(rows)), rows, strict=True))
            found |= {name: known[name] for name in ids if name in known}
        return found

    @property
    def _what(self) -> str:
        return f"datamodule.root={self.root}" if self.root is not None else f"datamodule.name={self.name}"

    def _opened(self, *, online: bool | None = None) -> Any:
        import datasets

        saved = self.root is not None and any(
            (self.root / name).is_file() for name in ("dataset_dict.json", "state.json")
        )
        if online is None:
            online = self.root is not None or reachable(datasets.config.HF_ENDPOINT)
        try:
            with _offline(not online):
                if saved:
                    return datasets.load_from_disk(str(self.root))
                return datasets.load_dataset(str(self.root or self.name), self.config, revision=self.revision)
        except Exception as error:  # the library's own kinds are many
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            if not online:
                raise DataError(
                    f"{self._what} is not in the cache of Hugging Face's datasets, and the hub is not reachable from "
                    "here; run once where there is a network, or give a folder with datamodule.root=PATH"
                ) from error
            raise DataError(f"{self._what} cannot be read by Hugging Face's datasets ({said})") from error

    def _image_column(self, features: Mapping[str, Any]) -> str:
        found = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
        return self._one("image_column", "images", self.image_column, found, features)

    def _label_column(self, features: Mapping[str, Any]) -> str:
        found = [
            name
            for name, feature in features.items()
            if type(getattr(feature, "feature", feature)).__name__ == "ClassLabel"
        ]
        usual = [name for name in _USUAL_LABELS if name in features]
        return self._one(
            "label_column", "targets", self.label_column, found if len(found) == 1 else usual[:1], features
        )

    def _one(self, key: str, what: str, given: str | None, found: list[str], features: Mapping[str, Any]) -> str:
        if given is not None and given in features:
            return given
        if given is None and len(found) == 1:
            return found[0]
        wrong = f"has no column {given}" if given is not None else f"does not say which column has the {what}"
        raise DataError(f"{self._what} {wrong}; it has {', '.join(features)}. Set datamodule.{key}.")

    def _texts(self, split: str, table: Any, column: str) -> Iterator[tuple[str, dict[str, str]]]:
        names = _class_names(table.features[column])

        def named(value: Any) -> Any:
            if isinstance(value, list):
                return [named(item) for item in value]
            return names[value] if names is not None and value is not None else value

        for number, value in enumerate(list(table[column]), start=1):
            yield f"row {number} of {split}", {column: cell(named(value), self.separator)}

    def _records(
        self, split: str, table: Any, column: str, targets: np.ndarray, total: int
    ) -> tuple[Records, list[dict[str, str]]]:
        rows = self._rows(table, column)
        files = [Path(entry["filename"]) for entry in table.cache_files]
        whole = None
        # Where it only names files, these may change.
        if files and len(rows) and rows[0].table[0][column]["bytes"] is not None:
            digests = file_digests(files, self.memory_path)
            whole = combined_digest([*((str(n), one) for n, one in enumerate(digests)), (column, str(len(rows)))])
        looks = looked_at(rows, whole, self.memory_path, self.max_pixels, total=total)
        return readable(rows, targets, _ids(split, len(rows)), looks)

    def _rows(self, table: Any, column: str) -> list[Row]:
        import datasets

        images = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        return [Row(images, index, self.max_pixels) for index in range(len(table))]


def _ids(split: str, count: int) -> list[str]:
    width = len(str(max(count - 1, 0)))
    return [f"{split}/{index:0{width}d}" for index in range(count)]


def _by_split(found: Any, what: str) -> tuple[dict[str, Any], list[str]]:
    """Tables by the name of their split, and the names that mean none."""
    if not isinstance(found, dict):
        return {"train": found}, []
    if len(found) == 1:
        return {"train": next(iter(found.values()))}, []
    splits: dict[str, Any] = {}
    for name, table in found.items():
        split = split_of(str(name))
        if split in splits:
            raise DataError(f"{what} has two splits that mean {split}: {', '.join(map(str, found))}")
        if split is not None:
            splits[split] = table
    if "train" not in splits:
        raise DataError(f"{what} has no train split, only {', '.join(map(str, found))}")
    order = [split for split in ("train", "val", "test") if split in splits]
    return {split: splits[split] for split in order}, [str(name) for name in found if split_of(str(name)) is None]


def _class_names(feature: Any) -> list[str] | None:
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else [name.strip() for name in names]


def _has_labels(table: Any, column: str) -> bool:
    """Whether it is no test split whose classes are kept secret, which is written as -1."""
    return column in table.features and not (
        type(table.features[column]).__name__ == "ClassLabel" and -1 in set(table[column])
    )


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """The library asks its cache only, instead of trying the hub for a minute."""
    import datasets
    import huggingface_hub

    places = [(datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE")]
    before = [getattr(place, name) for place, name in places]
    try:
        for place, name in places:
            setattr(place, name, wanted or getattr(place, name))
        yield
    finally:
        for (place, name), value in zip(places, before, strict=True):
            setattr(place, name, value)
