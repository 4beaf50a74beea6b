"""The user's own images with masks, in folders or in a table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from headstart.data.datamodule import ImageDataModule
from headstart.data.manifest import Columns, read_manifest
from headstart.data.records import Source
from headstart.data.scan import checked_root, list_images, split_folders
from headstart.data.segmentation.masks import mask_source
from headstart.errors import DataError

_LAYOUT = "root/{train,val,test}/{images,masks}/* or root/{images,masks}/*"


class MaskFolder(ImageDataModule):
    """Images and masks in folders beside each other. Licence and reference are the user's own.

    Trees::

        root/train/images/**/a.jpg    root/train/masks/**/a.png     val and test are optional
        root/images/**/a.jpg          root/masks/**/a.png           split by val_fraction and test_fraction

    A mask is a palette or grayscale PNG of its image's size whose pixels are class numbers; 255 does not count. All are
    looked at before training, and what was found is remembered.

    Args:
        root: the folder.
        class_names: in the order of their numbers; None: the numbers themselves.
        **choices: those of :class:`ImageDataModule`.
    """

    def __init__(self, *, root: str | Path, class_names: Sequence[str] | None = None, **choices: Any) -> None:
        super().__init__(**choices)
        self.root, self.class_names = checked_root(root), class_names

    def load(self) -> Source:
        """Pair images with masks by their names, then look at all of them.

        Raises:
            DataError: the folders are not there, or a mask is missing or wrong.
        """
        found, others = split_folders(self.root)
        parts = {split: f"{path.name}/" for split, path in found.items()} or {"train": ""}
        listed = []
        for split, prefix in parts.items():
            if not (self.root / prefix / "images").is_dir() or not (self.root / prefix / "masks").is_dir():
                raise DataError(
                    f"datamodule.root={self.root}: {prefix or '.'} has no images and masks; lay it out as {_LAYOUT}"
                )
            for name in list_images(self.root / prefix / "images"):
                mask = PurePosixPath(name).with_suffix(".png")
                listed.append((split, f"{prefix}images/{name}", f"{prefix}masks/{mask}"))
        if not listed:
            raise DataError(f"datamodule.root={self.root} holds no images; lay them out as {_LAYOUT}")
        images = {mask: image for _, image, mask in listed}
        if both := next(((image, images[mask], mask) for _, image, mask in listed if images[mask] != image), None):
            raise DataError(
                f"datamodule.root={self.root}: {both[0]} and {both[1]} have one mask by name, {both[2]}; rename one of "
                "them, or list both with their masks in a table (datamodule=masks_csv)"
            )
        source = mask_source(
            self.root.resolve().name or "masks",
            self.root,
            listed,
            class_names=self.class_names,
            memory_path=self.memory_path,
            max_pixels=self.max_pixels,
        )
        return replace(source, notes={"ignored_folders": others}) if found and others else source


class MaskTable(ImageDataModule):
    """Images and masks in any folders, listed in a table. Licence and reference are the user's own.

    Tree::

        manifest.csv        path,mask,split
                            a.jpg,masks/a.png,train
        root/a.jpg          by default the manifest's own folder

    Args:
        manifest: the table, with a header line.
        root: of the paths in it; None: the manifest's folder.
        path_column: of the images' paths.
        mask_column: of the masks' paths.
        split_column: of ``train``, ``val`` or ``test``; need not be there.
        group_column: of what belongs together, such as a patient: each group is in one split; None: there is none.
        class_names: in the order of their numbers; None: the numbers themselves.
        **choices: those of :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        manifest: str | Path,
        root: str | Path | None = None,
        path_column: str = "path",
        mask_column: str = "mask",
        split_column: str = "split",
        group_column: str | None = None,
        class_names: Sequence[str] | None = None,
        **choices: Any,
    ) -> None:
        super().__init__(**choices)
        self.manifest = Path(manifest).expanduser()
        self.root = Path(root).expanduser() if root is not None else self.manifest.parent
        self.columns = Columns(path_column, (mask_column,), split_column, group=group_column)
        self.class_names = class_names

    def load(self) -> Source:
        """Read the table, then look at all images and masks.

        Raises:
            DataError: the table is wrong, or a mask is missing or wrong.
        """
        table = read_manifest(self.manifest, self.columns, "classes")
        masks = [table.classes[place] for place in table.targets]
        lines = [f"{self.manifest}, {line}" for line in table.lines]
        for line, path in zip(lines, table.paths, strict=True):
            if not (self.root / path).is_file():
                raise DataError(f"{line}: {path} is not in {self.root}; set datamodule.root")
        source = mask_source(
            self.manifest.stem,
            self.root,
            list(zip(table.splits, table.paths, masks, strict=True)),
            lines=lines,
            class_names=self.class_names,
            memory_path=self.memory_path,
            max_pixels=self.max_pixels,
        )
        groups = None if table.groups is None else dict(zip(table.paths, table.groups, strict=True))
        return replace(source, groups=groups, places=dict(zip(table.paths, table.lines, strict=True)))
