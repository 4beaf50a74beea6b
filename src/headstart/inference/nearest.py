"""The images nearest to an image, by the cosine between their features; as text and as a page with small pictures."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.data.images import read_image
from headstart.errors import DataError, RunError
from headstart.inference.features import Extractor, Features
from headstart.study.page import Section, document, gallery, paragraph
from headstart.study.thumbnails import Thumbnail, thumbnail
from headstart.system.atomic import atomic_write

_AT_ONCE = 1024


@dataclass(frozen=True)
class Neighbour:
    """An image near another.

    Attributes:
        path: of it.
        cosine: between the two feature vectors, at most 1.
    """

    path: str
    cosine: float


def nearest(
    extractor: Extractor,
    images: Sequence[str],
    among: Iterable[str] | Features,
    *,
    count: int = 10,
    batch_size: int = 32,
    device: str = "auto",
) -> tuple[list[list[Neighbour]], list[str]]:
    """For each image the most similar ones, the nearest first; the same file is not among them.

    Args:
        extractor: of the features.
        images: to look for.
        among: paths of the images to look through, in any number, or their features.
        count: of neighbours.
        batch_size: images at a time.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns: the neighbours, and why images that were looked through have no features.

    Raises:
        DataError: an image cannot be read, or there is nothing to look through.
        RunError: the features are those of another model.
    """
    wanted = []
    for _, found in extractor.stream(images, batch_size=batch_size, device=device):
        if isinstance(found, DataError):
            raise found
        wanted.append(found)
    queries, own = _unit(np.array(wanted)), [_place(path) for path in images]
    skipped: list[str] = []
    if isinstance(among, Features):
        if among.source != extractor.source or among.vectors.shape[1] != queries.shape[1]:
            raise RunError(f"the features are of {among.source}, not of {extractor.source}; make them again with it")
        blocks = _stored(among)
    else:
        blocks = _computed(extractor.stream(among, batch_size=batch_size, device=device), skipped)
    best: list[list[Neighbour]] = [[] for _ in images]
    for names, vectors in blocks:
        for place, row in enumerate(queries @ _unit(vectors).T):
            # One more than asked for, as the image itself may be among them.
            near = np.argsort(-row, kind="stable")[: count + 1]
            new = [Neighbour(names[at], float(row[at])) for at in near if _place(names[at]) != own[place]]
            best[place] = sorted([*best[place], *new], key=lambda one: -one.cosine)[:count]
    if not all(best):
        raise DataError("there is no other image to look through" + (f": {skipped[0]}" if skipped else ""))
    return best, skipped


def write_page(path: Path, source: str, images: Sequence[str], found: Sequence[Sequence[Neighbour]]) -> None:
    """One self-contained page: each image, then its neighbours from left to right."""
    sections = [Section("about", "About", paragraph(f"Cosine similarity of the features of {source}; 1 is the same."))]
    for number, (image, near) in enumerate(zip(images, found, strict=True), start=1):
        pictures = [(_small(image), "the image"), *((_small(one.path), _caption(one)) for one in near)]
        sections.append(Section(f"image{number}", image, gallery(pictures)))
    lede = f"The {max(map(len, found))} nearest of each image, the most alike first."
    text = document("Similar images", source, lede, sections, "headstart similar")
    with atomic_write(path) as file:
        file.write(text)


def _caption(one: Neighbour) -> str:
    return f"{one.cosine:.3f} {Path(one.path).parent.name}/{Path(one.path).name}"


def _place(name: str) -> Path:
    """Where a file really is; of what can be none, its name."""
    try:
        return Path(name).resolve()
    except (OSError, RuntimeError, ValueError):  # a link to itself, a NUL
        return Path(name)


def _small(path: str) -> Thumbnail | None:
    try:
        return thumbnail(read_image(path))
    except DataError:  # gone since its features were stored
        return None


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _stored(features: Features) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    for start in range(0, len(features.ids), _AT_ONCE):
        yield features.ids[start : start + _AT_ONCE], features.vectors[start : start + _AT_ONCE]


def _computed(
    stream: Iterable[tuple[str, np.ndarray | DataError]], skipped: list[str]
) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    names: list[str] = []
    vectors: list[np.ndarray] = []
    for name, found in stream:
        if isinstance(found, DataError):
            skipped.append(str(found))
            continue
        names.append(name)
        vectors.append(found)
        if len(names) == _AT_ONCE:
            yield names, np.array(vectors)
            names, vectors = [], []
    if names:
        yield names, np.array(vectors)
