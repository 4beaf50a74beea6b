"""Which images to classify with which finished run, and the table of the outcome. No torch here."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from headstart.data.scan import list_images
from headstart.errors import DataError
from headstart.system.names import cell


@dataclass(frozen=True)
class Prediction:
    """What a run says about one image.

    Attributes:
        path: of the image, as it was found; empty for one that came as pixels.
        label: the most probable class; of several labels those predicted, with ``|`` between; of numbers nothing.
        probabilities: of every class, in the run's order; of numbers the predicted values.
    """

    path: str
    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Unreadable:
    """A file that is no usable image, and why."""

    path: str
    reason: str


def find_images(inputs: Iterable[str | Path]) -> list[str]:
    """Files as given, folders as the image files below them; each path once.

    Raises:
        DataError: something does not exist, or a folder holds no image.
    """
    found: dict[str, None] = {}
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_dir():
            names = list_images(path)
            if not names:
                raise DataError(f"{given} holds no image files; give image files or a folder of them.")
            found |= dict.fromkeys((path / name).as_posix() for name in names)
        elif path.exists():
            found[path.as_posix()] = None
        else:
            raise DataError(f"{given} does not exist; give image files or a folder of them.")
    return list(found)


def write_csv(
    file: IO[str], classes: Sequence[str], predictions: Iterable[Prediction], *, task: str = "multiclass"
) -> None:
    """One line an image: ``path``, ``class`` (or ``labels``), and ``probability/<class>`` for every class.

    For regression: ``path`` and a column for every quantity. A spreadsheet would run a name that begins like a formula:
    it gets an apostrophe before it.
    """
    writer = csv.writer(file, lineterminator="\n")
    numbers = task == "regression"
    label = [] if numbers else ["labels" if task == "multilabel" else "class"]
    writer.writerow(["path", *label, *(cell(name) if numbers else f"probability/{name}" for name in classes)])
    for row in predictions:
        values = (f"{value:.6g}" for value in row.probabilities)
        writer.writerow([cell(row.path), *([] if numbers else [cell(row.label)]), *values])
