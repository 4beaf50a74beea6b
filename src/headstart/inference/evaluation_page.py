"""The page of an evaluation: every metric with its interval, class by class, other runs, pictures of the answers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.inference.comparison import COMPARED, Comparison
from headstart.inference.resampling import DRAWS
from headstart.study.page import Cell, Section, document, drawing, heading, paragraph, table, verdict_box
from headstart.system.atomic import atomic_write

if TYPE_CHECKING:
    from headstart.inference.evaluate import Evaluation

PAGE = "report.html"
SCORED = ("metric", "value", "95 % interval over images", "the run's own")

_DASH = "-"
_MOST_CLASSES = 200
_MOST_SKIPPED = 60
_TITLES = {
    "confusion.png": "What is taken for what",
    "confident_errors.png": "Wrong with the highest confidence",
    "predicted_vs_true.png": "Predicted against true",
}


def write_page(
    folder: Path,
    run: str,
    found: "Evaluation",
    per_class: Mapping[str, Sequence[float]],
    compared: Sequence[Comparison],
    pictures: Sequence[str],
) -> Path:
    """``report.html`` in the folder of the evaluation, which needs none of its other files.

    Args:
        folder: with the pictures.
        run: name of the model's run.
        found: what it made of the images.
        per_class: of the task, see :meth:`headstart.tasks.Task.per_class`.
        compared: with other runs.
        pictures: names of PNG files in the folder.
    """
    title = f"{found.data} ({found.split})"
    sections = [
        Section("result", "Result", _result(run, found)),
        Section("metrics", "Metrics", table(SCORED, _cells(found.rows()))),
        *([Section("compared", "Against other runs", _compared(compared))] if compared else []),
        *([Section("classes", "Class by class", _classes(found, per_class))] if per_class else []),
        *([Section("answers", "Answers", _answers(folder, pictures))] if pictures else []),
        *([Section("skipped", "Left out", _skipped(found))] if found.skipped else []),
    ]
    lede = f"{len(found.ids):,} images, scored by the run {run}."
    footer = "The images that it got most wrong are in worst.csv, every answer is in predictions.npz."
    with atomic_write(folder / PAGE) as file:
        file.write(document(title, "Evaluation", lede, sections, footer))
    return folder / PAGE


def _result(run: str, found: "Evaluation") -> str:
    name = next((name for name in found.scores if name != "loss"), "loss")
    score = found.scores[name]
    interval = f", 95 % interval {score.low:.4f} to {score.high:.4f}" if math.isfinite(score.low) else ""
    points = [("Model", run), ("Images", f"{len(found.ids):,} of {found.data} ({found.split})")]
    if score.own is not None:
        points.append(("The run's own", f"{name} {score.own:.4f} on its own test images, else on validation"))
    words = f"percentile bootstrap over images, {DRAWS:,} draws; they say nothing about other training runs"
    return verdict_box(f"{name} {score.value:.4f}{interval}", [*points, ("Intervals", words)])


def _compared(compared: Sequence[Comparison]) -> str:
    parts = [heading(f"Minus {one.run}, on the same images") + table(COMPARED, _cells(one.rows())) for one in compared]
    return "".join(parts)


def _classes(found: "Evaluation", per_class: Mapping[str, Sequence[float]]) -> str:
    columns = {"precision": "precision", "recall": "recall", "f1": "F1"}
    rows = [
        [
            Cell(name),
            *(Cell(_number(per_class[key][place]), number=True) for key in columns),
            Cell(f"{per_class['support'][place]:,.0f}", number=True),
        ]
        for place, name in enumerate(found.classes[:_MOST_CLASSES])
    ]
    more = len(found.classes) - len(rows)
    note = paragraph(f"… and {more} more classes in evaluation.json.", "note") if more > 0 else ""
    return table(["class", *columns.values(), "images"], rows) + note


def _answers(folder: Path, pictures: Sequence[str]) -> str:
    return "".join(drawing((folder / name).read_bytes(), _TITLES.get(name, Path(name).stem)) for name in pictures)


def _skipped(found: "Evaluation") -> str:
    rows = [[Cell(entry["path"]), Cell(entry["error"])] for entry in found.skipped[:_MOST_SKIPPED]]
    return paragraph(f"{len(found.skipped)} files are no usable images.") + table(("file", "why"), rows)


def _cells(rows: Sequence[Sequence[str]]) -> list[list[Cell]]:
    return [[Cell(row[0]), *(Cell(text, number=True) for text in row[1:])] for row in rows]


def _number(value: float) -> str:
    return _DASH if math.isnan(value) else f"{value:.3f}"
