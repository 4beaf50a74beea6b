"""The user's own folder of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.datamodule import ImageDataModule
from headstart.data.images import MAX_PIXELS, find_bad_images
from headstart.data.records import Records, Source
from headstart.data.scan import IMG_EXTENSIONS, checked_root, normalised_extensions, scan_folder
from headstart.system.digest_memory import combined_digest


class Folder(ImageDataModule):
    """Images in class folders, with or without split folders. Licence and reference are the user's own.

    Trees::

        root/train/<class>/**/*.jpg     val (or valid, validation) and test are optional;
        root/val/<class>/**/*.jpg       every split has the same classes
        root/test/<class>/**/*.jpg

        root/<class>/**/*.jpg           split by val_fraction and test_fraction with split_seed

    Without a val folder, validation images are carved from train; without a test folder there is no test split
    unless ``test_fraction`` carves one. Files with other suffixes (GIFs, ``.DS_Store``) and hidden files are left
    aside and counted. Every image is decoded once before training, which finds damaged ones (``on_bad_image``); the
    outcome is remembered, so this costs one pass over a new folder.

    Args:
        root: the folder.
        extensions: suffixes of image files; None: those of torchvision's ``ImageFolder``.
        **choices: those of :class:`ImageDataModule`.
    """

    def __init__(self, *, root: str | Path, extensions: Sequence[str] | None = None, **choices: Any) -> None:
        super().__init__(**choices)
        self.root = checked_root(root)
        self.extensions = normalised_extensions(IMG_EXTENSIONS if extensions is None else extensions)

    def load(self) -> Source:
        """List the folder, then leave out what cannot be decoded."""
        scan = scan_folder(self.root, self.extensions)
        listed = [(split, name, target) for split, files in scan.files.items() for name, target in files]
        source = file_source(
            self.root.resolve().name or "folder",
            self.root,
            listed=[("train" if split == "all" else split, name, target) for split, name, target in listed],
            classes=scan.classes,
            memory_path=self.memory_path,
            max_pixels=self.max_pixels,
        )
        source.ignored.update(sorted(scan.ignored.items()))
        if scan.other_folders:
            source.notes["ignored_folders"] = list(scan.other_folders)
        return source


def file_source(
    name: str,
    root: Path,
    *,
    listed: Sequence[tuple[str, str, int]],
    classes: tuple[str, ...],
    memory_path: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """A source of image files, without those that cannot be decoded.

    Args:
        name: of the data set.
        root: of the relative paths.
        listed: ``(split, relative path, target)``.
        classes: names in the order of the targets.
        memory_path: where digests and checks are remembered.
        max_pixels: a larger image counts as unreadable.
    """
    paths = [root / relative for _, relative, _ in listed]
    digests, found = find_bad_images(paths, memory_path, max_pixels=max_pixels)
    bad = dict(found)
    splits: dict[str, Records] = {}
    for split in dict.fromkeys(split for split, _, _ in listed):
        keep = [place for place, entry in enumerate(listed) if entry[0] == split and place not in bad]
        splits[split] = Records(
            [paths[place] for place in keep],
            np.array([listed[place][2] for place in keep], dtype=np.int64),
            [listed[place][1] for place in keep],
            [digests[place] for place in keep],
        )
    content = sorted((relative, digests[place]) for place, (_, relative, _) in enumerate(listed))
    return Source(
        name=name,
        splits=splits,
        classes=classes,
        content_digest=combined_digest(content),
        bad=[{"path": str(paths[place]), "error": error} for place, error in found],
    )
