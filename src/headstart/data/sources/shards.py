"""Tar files as the webdataset library writes them, read in place."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.data.datamodule import ImageDataModule
from headstart.data.manifest import KIND_OF_TASK, Rows, parse_targets
from headstart.data.records import Source, content_of
from headstart.data.scan import IMG_EXTENSIONS, checked_root, list_images, split_of
from headstart.data.sources.encoded import Encoded, looked_at, readable
from headstart.data.sources.tar_files import TAR, members, read_at
from headstart.errors import DataError
from headstart.system.digest_memory import UNREADABLE, file_digests

_IMAGES = {suffix.removeprefix(".") for suffix in IMG_EXTENSIONS}
_LONGEST_TARGET = 1 << 20


@dataclass(frozen=True, slots=True)
class TarMember(Encoded):
    """A file inside a tar file.

    Attributes:
        shard: the tar file.
        offset: of its first byte there.
        size: in bytes.
        max_pixels: as in the base class.
    """

    shard: Path
    offset: int
    size: int
    max_pixels: int

    def content(self) -> bytes:
        """Read from the tar file."""
        return read_at(self.shard, self.offset, self.size)


class WebDataset(ImageDataModule):
    """Images in tar files, which are read in place: nothing is unpacked, and of an image only its place is in memory.

    Trees::

        root/{train,val,test}/*.tar          or root/train-000000.tar, root/val-000000.tar, ...;
        root/*.tar                           split by val_fraction and test_fraction with split_seed

        000000.tar: cat1.jpg cat1.cls dog7.jpg dog7.cls ...      names up to the first dot belong together

    Every image has a number, so that order, augmentation and what each process gets are as with any other data set,
    and a training that was interrupted goes on where it was. A new shard is read once beforehand, which finds damaged
    images; that is remembered by its content. Shards lie on a disk of the machine or one that is mounted.

    Args:
        root: the folder of the tar files.
        target: suffix of the members with the targets, such as ``cls`` or ``txt``; ``json.label`` is the field
            ``label`` of a JSON member.
        separator: between several labels or numbers of one image.
        **choices: those of :class:`ImageDataModule`.
    """

    def __init__(self, *, root: str | Path, target: str = "cls", separator: str = "|", **choices: Any) -> None:
        super().__init__(**choices)
        self.root = checked_root(root)
        self.target, self.separator = target, separator

    def load(self) -> Source:
        """List the shards' members, then leave out what cannot be decoded.

        Raises:
            DataError: there are no shards, one is damaged, or an image has no target.
        """
        shards = self._shards()
        digests = file_digests(list(shards), self.memory_path)
        listed: dict[str, tuple[list[TarMember], Rows, list[str], list[tuple[str, str]]]] = {}
        samples: dict[Path, list[tuple[str, TarMember, str]]] = {}
        for shard, digest in zip(shards, digests, strict=True):
            if digest.startswith(UNREADABLE):
                raise DataError(f"{shard} cannot be read: {digest.removeprefix(UNREADABLE)}")
            samples[shard] = list(self._samples(shard))
        total = sum(map(len, samples.values()))
        for (shard, found), digest in zip(samples.items(), digests, strict=True):
            images, rows, ids, looks = listed.setdefault(shards[shard], ([], [], [], []))
            images += [member for _, member, _ in found]
            rows += [(f"{key} in {shard.name}", {self.target: target}) for key, _, target in found]
            ids += [f"{self._prefix(shard)}{key}" for key, _, _ in found]
            looks += looked_at(images[len(looks) :], digest, self.memory_path, self.max_pixels, total=total)
        every = [row for _, rows, _, _ in listed.values() for row in rows]
        if not every:
            raise DataError(f"{self.root}: its {len(shards)} tar files have no images ({', '.join(sorted(_IMAGES))})")
        kind = KIND_OF_TASK.get(self.task, "classes")
        targets, classes = parse_targets(self.root, every, [self.target], kind, self.separator)
        splits, bad, start = {}, [], 0
        for split, (images, rows, ids, looks) in listed.items():
            splits[split], damaged = readable(images, targets[start : start + len(rows)], ids, looks)
            bad += damaged
            start += len(rows)
        return Source(
            name=self.root.resolve().name,
            splits=splits,
            classes=classes,
            content_digest=content_of(splits),
            bad=bad,
            notes={"shards": len(shards)},
            kind=kind,
        )

    def find(self, ids: Collection[str]) -> dict[str, TarMember]:
        """Those of the images that are there, by their ids; the others are not read."""
        found: dict[str, TarMember] = {}
        for shard in self._shards():
            prefix = self._prefix(shard)
            wanted = {name.removeprefix(prefix) for name in ids if name.startswith(prefix)}
            if not wanted:
                continue
            for key, sample in _grouped(shard):
                if key in wanted and (images := _images(sample)):
                    found[f"{prefix}{key}"] = TarMember(shard, *images[0], self.max_pixels)
        return found

    def _prefix(self, shard: Path) -> str:
        """Of the ids of a shard's images."""
        return f"{shard.relative_to(self.root).with_suffix('').as_posix()}/"

    def _shards(self) -> dict[Path, str]:
        """The tar files with their splits."""
        found = sorted(self.root / name for name in list_images(self.root, (TAR,)))
        if not found:
            raise DataError(f"datamodule.root={self.root} has no tar files; give the folder of the shards")
        splits = {shard: _split_of(shard.relative_to(self.root)) for shard in found}
        named = [shard for shard, split in splits.items() if split]
        if named and len(named) < len(found):
            other = next(shard for shard, split in splits.items() if not split)
            raise DataError(
                f"{self.root}: {named[0].name} is of the split {splits[named[0]]} by name and {other.name} of none. "
                "Name all such as train-000000.tar, or put them into the folders train, val and test."
            )
        return {shard: split or "train" for shard, split in splits.items()}

    def _samples(self, shard: Path) -> Iterator[tuple[str, TarMember, str]]:
        """Key, image and target of each sample with an image."""
        suffix, _, field = self.target.partition(".")
        for key, found in _grouped(shard):
            images = _images(found)
            if not images:
                continue
            if len(images) > 1:
                raise DataError(f"{shard}: {key} has {len(images)} images; one a sample is read")
            if suffix not in found:
                raise DataError(
                    f"{shard}: {key} has no .{suffix}, only {', '.join(found)}; name the suffix of the targets with "
                    "datamodule.target"
                )
            place = TarMember(shard, *found[suffix], 0)
            if place.size > _LONGEST_TARGET:
                raise DataError(f"{shard}: {key}.{suffix} has {place.size:,} bytes, too many for a target")
            target = _text(place.content(), field, self.separator, f"{shard}: {key}.{suffix}")
            yield key, TarMember(shard, *images[0], self.max_pixels), target


def _images(found: Mapping[str, tuple[int, int]]) -> list[tuple[int, int]]:
    """Places of the images among the members of a sample."""
    return [place for suffix, place in found.items() if suffix.rpartition(".")[2] in _IMAGES]


def _grouped(shard: Path) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Members that follow each other and belong together, by what is before the first dot: suffixes with places."""
    key, found = "", dict[str, tuple[int, int]]()
    for path, offset, size in members(shard):
        folder, _, name = path.rpartition("/")
        stem, _, suffix = name.partition(".")
        if not stem or not suffix:
            continue
        own = f"{folder}/{stem}" if folder else stem
        if own != key:
            if found:
                yield key, found
            key, found = own, {}
        found[suffix.lower()] = (offset, size)
    if found:
        yield key, found


def _split_of(shard: Path) -> str | None:
    if len(shard.parts) > 1:
        return split_of(shard.parts[0])
    start = re.match(r"[A-Za-z]*", shard.stem)
    return split_of(start.group()) if start else None


def _text(content: bytes, field: str, separator: str, where: str) -> str:
    try:
        text = content.decode().strip()
        if not field:
            return text
        value = json.loads(text)[field]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"has no field {field}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise DataError(f"{where} {reason}; name the targets with datamodule.target") from None
    return separator.join("" if one is None else str(one) for one in (value if isinstance(value, list) else [value]))
