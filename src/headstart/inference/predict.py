"""Any number of images through a finished model, into a file that the next start goes on with after a kill."""

import io
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headstart.execution.predict import Prediction, Unreadable
from headstart.inference.part import PartFile, say
from headstart.inference.rows import FORMATS, CsvRows, write_parquet

if TYPE_CHECKING:
    from headstart.tasks import Task


class Predictor(Protocol):
    """A model, or several as one."""

    @property
    def task(self) -> "Task":
        """What the numbers mean."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """In the order of the probabilities."""
        ...

    def stream(self, images: Iterator[str], *, batch_size: int, device: str) -> Iterator[Prediction | Unreadable]:
        """An outcome for each image, in order."""
        ...


class Following:
    """A predictor that does something with each prediction of another as it comes.

    Attributes:
        model: the other.
    """

    model: Predictor

    @property
    def task(self) -> "Task":
        """The model's."""
        return self.model.task

    @property
    def classes(self) -> Sequence[str]:
        """The model's."""
        return self.model.classes

    def stream(self, images: Iterator[str], *, batch_size: int, device: str) -> Iterator[Prediction | Unreadable]:
        """The model's outcomes, predictions as :meth:`follow` gives them on."""
        for outcome in self.model.stream(images, batch_size=batch_size, device=device):
            yield self.follow(outcome, device) if isinstance(outcome, Prediction) else outcome

    def follow(self, prediction: Prediction, device: str) -> Prediction:
        """What becomes of a prediction."""
        raise NotImplementedError


@dataclass(frozen=True)
class Tally:
    """What was predicted.

    Attributes:
        images: with a row in the output, whoever made it.
        unreadable: images without.
        resumed: images that an earlier process had done.
        labels: how often each class was given; empty where an image has no single class.
    """

    images: int
    unreadable: int
    resumed: int
    labels: Counter[str]


def predict_to_file(
    model: Predictor, images: Iterator[str], output: Path, *, about: Mapping[str, Any], batch_size: int, device: str
) -> Tally:
    """Write a row for each image; the file appears when it is complete, and an interrupted call can be repeated.

    Args:
        model: finished.
        images: paths, in the same order at each call.
        output: ``.csv``, ``.jsonl`` or ``.parquet``.
        about: the runs and options that the rows depend on.
        batch_size: images at a time.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        RunError: another process writes this file.
    """
    suffix = output.suffix.lower()
    rows = FORMATS[suffix](model.task.name, model.classes)
    output.parent.mkdir(parents=True, exist_ok=True)
    with PartFile(output, {**about, "rows": type(rows).__name__}, rows.header) as part:

        def outcomes(left: Iterator[str]) -> Iterator[tuple[str, str]]:
            for outcome in model.stream(left, batch_size=batch_size, device=device):
                if isinstance(outcome, Unreadable):
                    say(f"skipped: {outcome.reason}")
                    yield "", ""
                else:
                    yield rows.row(outcome), outcome.label if model.task.one_class else ""

        part.fill(images, outcomes, batch_size=batch_size)
        tally = Tally(part.rows, part.images - part.rows, part.resumed, part.labels)
        if not part.rows:
            part.discard()
        elif suffix == ".parquet":
            write_parquet(part.path, output, task=model.task.name, classes=model.classes)
            part.discard()
        else:
            part.finish()
    return tally


def predict_to_stream(model: Predictor, images: Iterator[str], *, batch_size: int, device: str) -> Tally:
    """CSV on standard output, row by row. A path that is not UTF-8 is written with its own bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape", line_buffering=False)
    rows = CsvRows(model.task.name, model.classes)
    labels: Counter[str] = Counter()
    done = unreadable = 0
    sys.stdout.write(rows.header)
    for outcome in model.stream(images, batch_size=batch_size, device=device):
        if isinstance(outcome, Unreadable):
            say(f"skipped: {outcome.reason}")
            unreadable += 1
            continue
        done += 1
        if model.task.one_class and outcome.label:
            labels[outcome.label] += 1
        sys.stdout.write(rows.row(outcome))
    sys.stdout.flush()
    return Tally(done, unreadable, 0, labels)
