"""Images listed in a table with their classes, labels or numbers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from headstart.data.datamodule import ImageDataModule
from headstart.data.folder import file_source
from headstart.data.manifest import KIND_OF_TASK, Columns, Manifest, read_manifest
from headstart.data.records import Source
from headstart.errors import DataError
from headstart.system.names import some
from headstart.system.options import Later


class CSV(ImageDataModule):
    """Images in any folders, listed in a table. Licence and reference are the user's own.

    Tree::

        manifest.csv        path,target,split
                            cats/1.jpg,cat,train
        root/cats/1.jpg     by default the manifest's own folder

    What the other columns mean is the ``task``'s: for ``multiclass`` and ``binary`` one column of class names; for
    ``regression`` one or several columns of numbers; for ``multilabel`` several columns of 0 and 1, or one of names
    with a separator between them. Without a ``split`` column all images are split by ``val_fraction`` and
    ``test_fraction`` with ``split_seed``. Every image is decoded once beforehand to find damaged ones.

    Args:
        manifest: the table: CSV or TSV with a header line, or Parquet.
        root: of the paths in it; None: the manifest's folder.
        path_column: of the images' paths.
        target_columns: of the targets; None: all other columns.
        split_column: of ``train``, ``val`` or ``test``; need not be there.
        separator: between the labels in a single column.
        group_column: of what belongs together, such as a patient: each group is in one split; None: there is none.
        **choices: those of :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        manifest: str | Path,
        root: str | Path | None = None,
        path_column: str = "path",
        target_columns: Sequence[str | int] | None = None,
        split_column: str = "split",
        separator: str = "|",
        group_column: Annotated[str | None, Later] = None,
        **choices: Any,
    ) -> None:
        super().__init__(**choices)
        self.manifest = Path(manifest).expanduser()
        self.root = Path(root).expanduser() if root is not None else self.manifest.parent
        self.columns = Columns(
            path_column, tuple(map(str, target_columns or ())), split_column, separator, group_column
        )

    def load(self) -> Source:
        """Read the table, then leave out what cannot be decoded.

        Raises:
            DataError: the table or a path in it is wrong.
        """
        table = read_manifest(self.manifest, self.columns, KIND_OF_TASK.get(self.task, "classes"))
        self._check_files(table)
        listed = [
            (split, path, place) for place, (split, path) in enumerate(zip(table.splits, table.paths, strict=True))
        ]
        source = file_source(
            self.manifest.stem,
            self.root,
            listed=listed,
            classes=table.classes,
            memory_path=self.memory_path,
            max_pixels=self.max_pixels,
        )
        splits = {
            split: replace(records, targets=table.targets[records.targets]) for split, records in source.splits.items()
        }
        groups = None if table.groups is None else dict(zip(table.paths, table.groups, strict=True))
        places = dict(zip(table.paths, table.lines, strict=True))
        return replace(source, splits=splits, kind=table.kind, groups=groups, places=places)

    def _check_files(self, table: Manifest) -> None:
        missing = [
            f"{path} ({line})"
            for path, line in zip(table.paths, table.lines, strict=True)
            if not (self.root / path).is_file()
        ]
        if missing:
            raise DataError(
                f"{self.manifest}: {len(missing)} of {len(table.paths)} images are not in {self.root}: "
                f"{some(missing)}; set datamodule.root to the folder that the paths start from"
            )
