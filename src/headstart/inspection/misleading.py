"""Labels to look at, as a table to correct and as a part of the page."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart.data.datamodule import ImageDataModule
from headstart.inspection.suspects import Judged, Suspect
from headstart.study.page import Cell, paragraph, table
from headstart.study.thumbnails import thumbnail
from headstart.system.atomic import write_rows

TABLE = "suspects.csv"
MOST_SHOWN = 60
"""Images that the page shows; the table has all."""


@dataclass(frozen=True)
class Misleading:
    """What models that were not trained on them say of images, where it is not what they are labelled.

    Attributes:
        judged: all images that were asked about.
        named: those to look at, the most surprising first.
    """

    judged: Judged
    named: list[Suspect]

    def sentence(self) -> str:
        """How many there are, and who says it."""
        return (
            f"{len(self.named):,} of {len(self.judged.ids):,} labels surprise models that have not seen them "
            f"({self.judged.how}); look at the first ones"
        )

    def write(self, folder: Path) -> Path:
        """The table to correct."""
        path = folder / TABLE
        write_rows(path, [one.row() for one in self.named])
        return path

    def html(self, data: ImageDataModule) -> str:
        """The first images with their pictures."""
        opening = (
            f"{self.sentence()}: a wrong label is most likely near the top, further down are images that are hard. "
            f"{TABLE} has all of them, with a column for the label that is right."
        )
        shown = self.named[:MOST_SHOWN]
        return paragraph(opening) + table(
            ("image", "label", "the models say", "probability of the label", "loss"), list(self._rows(shown, data))
        )

    def _rows(self, shown: list[Suspect], data: ImageDataModule) -> Iterator[list[Cell]]:
        places = {name: (split, place) for split in data.sizes for place, name in enumerate(data.records(split).ids)}
        sets = {split: data.dataset(split) for split in data.sizes}
        for one in shown:
            probability = "" if one.probability is None else f"{one.probability:.3f}"
            # The image may have been moved or deleted since, as this page asks for.
            split, place = places.get(one.image, ("", 0))
            picture = thumbnail(sets[split].image(place)) if split else None
            yield [
                Cell(one.image, split or "no longer there", picture=picture),
                Cell(one.label),
                Cell(one.said),
                Cell(probability, number=True),
                Cell(f"{one.loss:.2f}", number=True),
            ]
