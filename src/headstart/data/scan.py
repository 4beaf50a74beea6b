"""What is in an image folder: its splits, classes and image files, and what is left aside.

Only names are read here; no image is opened and torch is not needed.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from headstart.errors import DataError
from headstart.system.digest_memory import UNREADABLE, combined_digest, file_digests
from headstart.system.names import natural, some

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Those of torchvision's ``ImageFolder``, so no GIF."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What a split is called in folders and tables, in any case."""

_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
# What systems and tools leave in folders; names that begin with a dot are left out anyway.
_LEFT_BY_SYSTEMS = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found")

_LAYOUTS = "root/{train,val,test}/<class>/* or root/<class>/*"


@dataclass(frozen=True)
class FolderScan:
    """The image files of a folder, by name only.

    Attributes:
        classes: class names in code point order; the position is the target.
        files: per split (``all`` where the folder has none) the paths relative to the root with their targets,
            in the order of the paths.
        ignored: how many files were left aside, by suffix (hidden files by ``.*``).
        other_folders: folders beside the splits that were not read.
    """

    classes: tuple[str, ...]
    files: dict[str, list[tuple[str, int]]]
    ignored: Counter[str] = field(default_factory=Counter)
    other_folders: tuple[str, ...] = ()


def scan_folder(root: str | Path, extensions: Sequence[str] = IMG_EXTENSIONS) -> FolderScan:
    """List the images below ``root``, which has split folders or class folders.

    Raises:
        DataError: the folder is missing or holds no usable classes; the message says how to lay it out.
    """
    root = checked_root(root)
    extensions = normalised_extensions(extensions)
    splits = _split_folders(root, extensions)
    others: tuple[str, ...] = ()
    if splits:
        used = {path.name for path in splits.values()}
        others = tuple(path.name for path in _folders(root) if path.name not in used)
    ignored: Counter[str] = Counter()
    if splits:
        for path in _plain_files(root):
            ignored[_suffix(path)] += 1
    listings = {split: _scan_classes(path, extensions, ignored) for split, path in (splits or {"all": root}).items()}
    classes = _agreed_classes(root, splits, listings)
    positions = {name: position for position, name in enumerate(classes)}
    files = {
        split: [
            ((Path(splits[split].name) / name).as_posix() if splits else name, positions[label])
            for name, label in _in_order(listing)
        ]
        for split, listing in listings.items()
    }
    return FolderScan(classes, files, ignored, others)


def list_images(root: str | Path, extensions: Sequence[str] = IMG_EXTENSIONS) -> list[str]:
    """Every image file below ``root`` as a relative path with forward slashes, in order; hidden ones are left out."""
    return sorted(iterate_images(root, extensions))


def iterate_images(root: str | Path, extensions: Sequence[str] = IMG_EXTENSIONS) -> Iterator[str]:
    """The same paths folder by folder, before the next one is read: what is in a folder, then what is below it."""
    root = Path(root)
    wanted = normalised_extensions(extensions)
    return (path.relative_to(root).as_posix() for path in _walk(root) if _is_image(path, wanted))


def checked_root(root: str | Path | None) -> Path:
    """The existing folder that the user named.

    Raises:
        DataError: none was named, or it is no folder.
    """
    if root is None or not str(root).strip() or str(root) == "???":
        raise DataError(
            f"datamodule.root is not set; give the folder of your images ({_LAYOUTS}): datamodule.root=PATH"
        )
    path = Path(root).expanduser()
    if path.is_dir():
        return path
    what = "is a file, not a folder" if path.exists() else "does not exist"
    near = next((parent for parent in path.absolute().parents if parent.is_dir()), None)
    hint = f"; the nearest folder that exists is {near}" if near and not path.exists() else ""
    raise DataError(f"datamodule.root={root} {what}{hint}. Give a folder laid out as {_LAYOUTS}.")


def normalised_extensions(extensions: Sequence[str]) -> tuple[str, ...]:
    """Lower-case suffixes, each with its dot.

    Raises:
        DataError: there are none.
    """
    listed = [extensions] if isinstance(extensions, str) else list(extensions)
    suffixes = tuple(f".{suffix.lower().lstrip('.')}" for suffix in listed if suffix.strip("."))
    if not suffixes:
        raise DataError("datamodule.extensions is empty; give suffixes such as [.jpg,.png], or leave it at null.")
    return suffixes


def split_of(name: str) -> str | None:
    """The split that a folder's or a table's word means, or None: ``Training`` is ``train``."""
    return _SPLIT_OF.get(name.strip().lower())


def split_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders that are called like splits, by split, and the names of those beside them.

    Raises:
        DataError: two folders mean one split.
    """
    found: dict[str, Path] = {}
    others: list[str] = []
    for path in _folders(root):
        split = split_of(path.name)
        if split is None:
            others.append(path.name)
        elif split in found:
            both = f"{found[split].name}, {path.name}"
            raise DataError(f"{root} has several folders for the {split} split ({both}); keep one of them.")
        else:
            found[split] = path
    return found, others


def _split_folders(root: Path, extensions: tuple[str, ...]) -> dict[str, Path]:
    """The split folders by split; empty where the root holds class folders directly.

    Raises:
        DataError: two folders mean one split, or all folders are splits and none is for training.
    """
    found, others = split_folders(root)
    if "train" not in found:
        folders = _folders(root)
        if found and not others:
            names = ", ".join(path.name for path in found.values())
            raise DataError(f"{root} has {names} but no train folder; expected {_LAYOUTS}.")
        if len({_beside_split_words(path.name) for path in folders}) == 1 and len(folders) > 1:
            raise DataError(
                f"the folders of {root} ({some([path.name for path in folders], 5)}) are named like splits, not like "
                "classes; name them train, val and test, with a folder for each class inside, or set datamodule.root "
                "to one of them."
            )
        return {}
    # A class may be called "train": then images lie directly in it, and there are no class folders inside.
    if not _folders(found["train"]) and any(_is_image(path, extensions) for path in _plain_files(found["train"])):
        return {}
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def _beside_split_words(name: str) -> str:
    """What a name says beside the words for splits: ``seg_train`` and ``seg_test`` differ in nothing else."""
    words = re.findall(r"[a-z]+|[0-9]+", name.lower())
    rest = [word for word in words if word not in _SPLIT_OF and not (word.isdigit() and "fold" in words)]
    return "".join(rest) if len(rest) < len(words) else name


def _scan_classes(folder: Path, extensions: tuple[str, ...], ignored: Counter[str]) -> dict[str, list[str]]:
    """Per class folder the image paths relative to ``folder``; everything else is counted in ``ignored``."""
    loose = 0
    for path in _plain_files(folder):
        ignored[_suffix(path)] += 1
        loose += _is_image(path, extensions)
    classes = _folders(folder)
    if not classes:
        has = f"holds {loose} images but no class folders" if loose else "has no class folders"
        raise DataError(
            f"{folder} {has}; put the images of each class into a folder of its own ({_LAYOUTS}). "
            "Unlabelled images belong elsewhere: classify them with `headstart predict`."
        )
    listing: dict[str, list[str]] = {}
    for path in classes:
        names = []
        for file in _walk(path):
            if _is_image(file, extensions):
                names.append(file.relative_to(folder).as_posix())
            else:
                ignored[_suffix(file)] += 1
        listing[path.name] = names
    if not any(listing.values()):
        seen = ", ".join(f"{count} x {suffix}" for suffix, count in sorted(ignored.items())) or "no files at all"
        raise DataError(
            f"{folder} holds no images: found {seen}, looked for {' '.join(extensions)}. "
            "Check datamodule.root, or name other suffixes with datamodule.extensions=[.xyz]."
        )
    empty = [name for name, names in listing.items() if not names]
    if empty:
        raise DataError(
            f"class folder {folder / empty[0]} holds no images"
            + (f" (and {len(empty) - 1} more: {some(empty[1:], 5)})" if len(empty) > 1 else "")
            + "; add images or remove the folder."
        )
    return listing


def _agreed_classes(root: Path, splits: dict[str, Path], listings: dict[str, dict[str, list[str]]]) -> tuple[str, ...]:
    """The class names, which every split must have."""
    first = next(iter(listings))
    classes = tuple(sorted(listings[first], key=natural))
    for split, listing in listings.items():
        extra, missing = sorted(set(listing) - set(classes)), sorted(set(classes) - set(listing))
        if extra or missing:
            facts = [f"only in {splits[first].name}: {some(missing, 5)}"] if missing else []
            facts += [f"only in {splits[split].name}: {some(extra, 5)}"] if extra else []
            raise DataError(
                f"the classes of {root} differ between splits ({'; '.join(facts)}); "
                "every split needs the same class folders, spelt alike."
            )
    if len(classes) < 2:
        raise DataError(
            f"{splits.get(first, root)} has one class only ({classes[0]}); classification needs at least two class "
            f"folders. If {classes[0]} is itself the data set, set datamodule.root={root / classes[0]}."
        )
    return classes


def _in_order(listing: dict[str, list[str]]) -> list[tuple[str, str]]:
    return sorted((name, label) for label, names in listing.items() for name in names)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in _entries(folder) if path.is_dir() and not _hidden(path.name))


def _plain_files(folder: Path) -> list[Path]:
    return sorted(path for path in _entries(folder) if path.is_file())


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    """A folder that cannot be read would silently take its images out of the data."""
    raise DataError(
        f"{error.filename} cannot be read ({error.strerror}); make it readable (chmod -R u+rX), or take it out."
    ) from None


def _is_image(path: Path, extensions: tuple[str, ...]) -> bool:
    return not _hidden(path.name) and path.name.lower().endswith(extensions)


def folders_sort_by_number(root: str | Path) -> bool:
    """Whether the folders at or below the first level have another order by the numbers in their names."""
    root = Path(root).expanduser()
    if not root.is_dir():
        return False
    first = _folder_names(root)
    found = [first, *(_folder_names(root / name) for name in first)]
    return any(sorted(names) != sorted(names, key=natural) for names in found)


def _folder_names(folder: Path) -> list[str]:
    """Names of the folders in one, without a look at each of its files."""
    return [name for name in next(os.walk(folder, onerror=_refuse))[1] if not _hidden(name)]


def _suffix(path: Path) -> str:
    if path.name.startswith("."):
        return path.name if path.name == ".DS_Store" else ".*"
    return path.suffix.lower() or "(none)"


def _walk(folder: Path) -> Iterator[Path]:
    """All files below ``folder``, links followed once, in order; hidden folders are left out."""
    visited: set[str] = set()
    for current, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(current)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in sorted(files):
            yield Path(current) / name


def content_digest(
    root: str | Path,
    files: Iterable[str] | None = None,
    memory_path: str | Path | None = None,
    *,
    extensions: Sequence[str] = IMG_EXTENSIONS,
) -> str:
    """Digest of what a folder (or one file) holds: relative paths and contents, whatever its own name or place.

    Args:
        root: a folder, or a single file.
        files: paths relative to ``root``; by default every image file below it.
        memory_path: the SQLite file that remembers digests; by default the one in the user's cache folder.
        extensions: what counts as an image file where ``files`` is not given.

    Returns: 64 hexadecimal digits.

    Raises:
        DataError: ``root`` is missing or, being a file, cannot be read. An unreadable file inside a folder counts as
            one without content.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        digest = file_digests([root], memory_path)[0]
        if digest.startswith(UNREADABLE):
            raise DataError(f"{root} cannot be read: {digest.removeprefix(UNREADABLE)}.")
        return digest
    names = sorted(list_images(root, extensions) if files is None else files)
    return combined_digest(zip(names, file_digests([root / name for name in names], memory_path), strict=True))
