"""What a data set looks like, in the terminal and as a page: before training, where mistakes are cheap."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.markup import escape
from rich.text import Text

from headstart.config import compose, resolve_run
from headstart.config.settings import Component
from headstart.data.datamodule import ImageDataModule
from headstart.data.transforms import to_picture
from headstart.errors import RunError
from headstart.inspection.facts import Inspection, Pair, Place, inspect_data
from headstart.inspection.misleading import Misleading
from headstart.inspection.suspects import Suspect, data_of, judge, suspects
from headstart.plots.style import SERIES, Plot, canvas, finish, legend_above, shorten
from headstart.runs.reader import read_run
from headstart.study.page import Cell, Section, bullets, document, figures, gallery, heading, paragraph, table
from headstart.study.thumbnails import thumbnail
from headstart.system.atomic import atomic_write
from headstart.system.colours import palette
from headstart.system.console import plain_table, show
from headstart.training.assemble import build_backbone, build_data

PAGE = "data.html"
PLOTS = "data"
MOST_PAIRS = 60
"""Pairs of the same picture that the page shows; all are counted."""

_PER_CLASS = 2
_MOST_CLASSES = 12
_MOST_BARS = 40


def inspect(overrides: Sequence[str], out: Path | None = None) -> Inspection:
    """Look at the data that a training with these choices would use; prints a summary and writes the page.

    Args:
        overrides: as on the command line.
        out: folder of the page; None: ``inspection/<name of the data>`` beside the studies.

    Raises:
        HeadstartError: the data cannot be used as asked.
    """
    resolved = resolve_run(compose(list(overrides)))
    settings, chosen = resolved.settings, resolved.settings.datamodule
    # What would end a training is what this is for.
    tolerant = Component(chosen.target, {**chosen.arguments, "on_leak": "ignore"})
    data = build_data(tolerant, seed=settings.seed, task=settings.task)
    image_size = chosen.arguments.get("image_size")
    backbone = build_backbone(settings.backbone, resolved.weights, seed=settings.seed, image_size=image_size)
    data.configure(backbone.input_spec)
    return _told(data, Path(settings.paths.output_dir), out)


def inspect_runs(runs: Sequence[Path], out: Path | None = None) -> tuple[Inspection, list[Suspect]]:
    """Look at the data of finished runs, and at the images that most mislead them.

    Args:
        runs: one run, or those of a cross-validation.
        out: folder of the page and of ``suspects.csv``; None: as of :func:`inspect`, beside the first run's study.

    Raises:
        HeadstartError: a run is not finished, or the data cannot be used any more.
    """
    records = [read_run(path) for path in runs]
    if odd := next((record for record in records if record.status != "done"), None):
        raise RunError(f"{odd.path} is not finished: {odd.reason}; look at finished runs, or finish it first")
    data = data_of(records[0])
    judged = judge(records, data)
    named = suspects(judged)
    return _told(data, records[0].path.parent.parent, out, Misleading(judged, named)), named


def _told(
    data: ImageDataModule, output_dir: Path, out: Path | None, misleading: Misleading | None = None
) -> Inspection:
    found = inspect_data(data)
    print_inspection(found)
    folder = out or output_dir / "inspection" / re.sub(r"[^\w.-]+", "_", found.name)
    page = write_page(found, data, folder, misleading)
    if misleading is not None:
        show(Text(misleading.sentence(), style="yellow"))
        show(str(misleading.write(folder)))
    show(str(page))
    return found


def print_inspection(found: Inspection) -> None:
    """The summary in the terminal."""
    grid = plain_table(escape(found.name))
    grid.add_column("class" if found.counts else "split", overflow="fold")
    if found.counts:
        for split in found.sizes:
            grid.add_column(split + (" (carved)" if split in found.carved else ""), justify="right")
        for place, name in enumerate(found.classes):
            grid.add_row(Text(name), *(str(found.counts[split][place]) for split in found.sizes))
        grid.add_row(Text("all", style="bold"), *map(str, found.sizes.values()))
    else:
        grid.add_column("images", justify="right")
        for split, size in found.sizes.items():
            grid.add_row(Text(split), str(size))
    show(grid)
    for fact in found.facts():
        show(Text(fact))
    for warning in found.warnings():
        show(Text(warning, style="yellow"))


def write_page(found: Inspection, data: ImageDataModule, folder: Path, misleading: Misleading | None = None) -> Path:
    """``data.html`` in ``folder``, with its plots beside it.

    Args:
        found: of :func:`headstart.inspection.facts.inspect_data`.
        data: the same data, configured with what the network expects.
        folder: made if need be.
        misleading: images that should be looked at, where runs were asked.
    """
    plots = folder / PLOTS
    plots.mkdir(parents=True, exist_ok=True)
    images = _Images(data)
    sections = [
        Section("summary", "Summary", _summary(found)),
        *([Section("suspects", "Labels to look at", misleading.html(data))] if misleading else []),
        Section("classes", "Classes and splits", _classes(found, plots)),
        Section("samples", "What the network sees", _samples(found, data, images)),
        *([Section("pairs", "The same picture twice", _pairs(found, images))] if found.pairs else []),
        *([Section("damaged", "Unreadable files", _damaged(found))] if found.damaged else []),
    ]
    splits = ", ".join(f"{size} images in {split}" for split, size in found.sizes.items())
    text = document(found.name, "Data set", f"{len(found.classes)} classes; {splits}.", sections, "headstart inspect")
    with atomic_write(folder / PAGE) as file:
        file.write(text)
    return folder / PAGE


class _Images:
    """Pictures for the page."""

    def __init__(self, data: ImageDataModule) -> None:
        self._sets = {split: data.dataset(split) for split in data.sizes}
        self._augmented = data.dataset("train", augmented=True)
        self._spec = data.eval_transform.spec
        self.records = {split: data.records(split) for split in data.sizes}

    def stored(self, place: Place) -> Image.Image:
        """Decoded, before any transform."""
        return self._sets[place.split].image(place.index)

    def evaluated(self, place: Place) -> Image.Image:
        """As evaluation shows it to the network."""
        return self._seen(self._sets[place.split][place.index])

    def augmented(self, index: int, epoch: int) -> Image.Image:
        """As one epoch of training shows it to the network."""
        return self._seen(self._augmented[epoch, index])

    def _seen(self, item: dict[str, Any]) -> Image.Image:
        """An item of a data set, with its mask laid over it where it has one."""
        picture = to_picture(item["images"], self._spec)
        if self.records["train"].masks is None:
            return picture
        return Image.blend(picture.convert("RGB"), Image.fromarray(palette()[item["targets"].numpy()]), 0.5)

    def name(self, place: Place) -> str:
        """Of an image, without what every image of its folder shares."""
        return self.records[place.split].ids[place.index]


def _summary(found: Inspection) -> str:
    warnings = found.warnings()
    opening = "To be seen to before training:" if warnings else "Nothing was found that should be seen to first."
    return paragraph(opening) + (bullets(warnings) if warnings else "") + heading("Files") + bullets(found.facts())


def _classes(found: Inspection, plots: Path) -> str:
    if not found.counts:
        rows = [[Cell(split), Cell(str(size), number=True)] for split, size in found.sizes.items()]
        return table(("split", "images"), rows)
    columns = ("class", *(f"{split} (carved)" if split in found.carved else split for split in found.sizes))
    rows = [
        [Cell(name), *(Cell(str(found.counts[split][place]), number=True) for split in found.sizes)]
        for place, name in enumerate(found.classes)
    ]
    return table(columns, rows) + figures([_bars(found, plots)])


def _bars(found: Inspection, plots: Path) -> Plot | None:
    if not 1 < len(found.classes) <= _MOST_BARS:
        return None
    with canvas(0.6 + 0.24 * len(found.classes), legend=True) as (figure, axes):
        left = np.zeros(len(found.classes))
        for place, split in enumerate(found.sizes):
            counts = np.array(found.counts[split])
            axes.barh(np.arange(len(counts)), counts, left=left, color=SERIES[place], label=split, height=0.7)
            left += counts
        axes.set_yticks(np.arange(len(found.classes)), [shorten(name, 24) for name in found.classes])
        axes.invert_yaxis()
        axes.set_xlabel("images")
        axes.grid(axis="y", visible=False)
        legend_above(figure, axes)
        return finish(
            figure,
            plots,
            name="classes",
            title="Images of each class",
            caption="A class with few images is learned badly and scored coarsely.",
            alt=f"From {int(left.min())} to {int(left.max())} images a class.",
            rows=[
                {"class": name, **{split: found.counts[split][place] for split in found.sizes}}
                for place, name in enumerate(found.classes)
            ],
        )


def _samples(found: Inspection, data: ImageDataModule, images: _Images) -> str:
    targets = data.targets("train")
    if found.counts and targets.ndim == 1:
        chosen = [
            int(index)
            for target in range(min(len(found.classes), _MOST_CLASSES))
            for index in np.flatnonzero(targets == target)[:_PER_CLASS]
        ]
    else:
        chosen = list(range(min(len(targets), _MOST_CLASSES)))
    spec = data.eval_transform.spec
    rows = []
    for index in chosen:
        place = Place("train", index)
        label = found.classes[int(targets[index])] if targets.ndim == 1 and found.counts else images.name(place)
        shown = [images.stored(place), images.evaluated(place), *(images.augmented(index, epoch) for epoch in (0, 1))]
        words = (label, "in evaluation", "in epoch 1", "in epoch 2")
        rows.append(gallery((thumbnail(picture), text) for picture, text in zip(shown, words, strict=True)))
    opening = (
        f"{spec.height} x {spec.width} pixels, {spec.interpolation} interpolation. From left to right: the image, what "
        "evaluation makes of it, and two epochs of training."
    )
    if data.records("train").masks is not None:
        opening += " Masks are laid over what the network sees, each class in its colour."
    return paragraph(opening) + "".join(rows)


def _pairs(found: Inspection, images: _Images) -> str:
    across = sum(pair.across for pair in found.pairs)
    opening = f"{len(found.pairs)} pairs, {across} of them across splits."
    if len(found.pairs) > MOST_PAIRS:
        opening += f" The first {MOST_PAIRS} are shown."
    rows = [_pair(pair, images) for pair in found.pairs[:MOST_PAIRS]]
    return paragraph(opening) + table(("first", "second", "how alike", "labels"), rows)


def _pair(pair: Pair, images: _Images) -> Sequence[Cell]:
    cells = [
        Cell(images.name(place), place.split, picture=thumbnail(images.stored(place)))
        for place in (pair.first, pair.second)
    ]
    alike = "the same file" if pair.exact else f"{pair.correlation:.3f}{', mirrored' if pair.mirrored else ''}"
    return [*cells, Cell(alike), Cell("the same" if pair.same_label else "different")]


def _damaged(found: Inspection) -> str:
    rows = [[Cell(entry["path"]), Cell(entry["error"])] for entry in found.damaged[:MOST_PAIRS]]
    return table(("file", "why"), rows)
