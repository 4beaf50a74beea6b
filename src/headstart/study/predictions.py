"""Plots of predictions: reliability, and which class is taken for which."""

from collections.abc import Mapping, Sequence

import numpy as np

from headstart.plots.confusion import COUNTED_CLASSES, draw_confusion
from headstart.plots.style import MUTED, Plot, canvas, legend_above, shorten
from headstart.runs.reader import StoredPredictions
from headstart.study.labels import Sheet
from headstart.study.mistakes import calibration_errors, class_name, confusion, pooled_calibration

MOST_PANELS = 4


def reliability(sheet: Sheet, runs: Mapping[str, Sequence[StoredPredictions]]) -> Plot | None:
    """How often each value is right, by how sure it says it is."""
    if not runs:
        return None
    rows, errors = [], {value: calibration_errors(members).mean for value, members in runs.items()}
    with canvas(3.4, legend=True) as (figure, axes):
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        for value, members in runs.items():
            pooled = pooled_calibration(members)
            label = f"{value}, error {100 * errors[value]:.1f} %"
            sheet.line(axes, value, 100 * pooled.confidence, 100 * pooled.accuracy, label=label)
            rows += [
                {"value": value, "confidence": said, "accuracy": true, "images": count,
                 "calibration_error": errors[value]}
                for said, true, count in zip(pooled.confidence, pooled.accuracy, pooled.count, strict=True)
            ]  # fmt: skip
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.set_xlabel("how sure the model says it is, %")
        axes.set_ylabel("how often it is right, %")
        legend_above(figure, axes, columns=1)
        words = "; ".join(f"{value} {100 * error:.1f} %" for value, error in errors.items())
        return sheet.finish(
            figure,
            "calibration",
            title="When it says 90 %, is it right nine times in ten?",
            caption="On the dashed line confidence and truth agree; below it a model is too sure of itself. The "
            "error is the mean gap over all images (expected calibration error, ten bins, mean over runs).",
            alt=f"Reliability curves. Expected calibration error: {words}.",
            rows=rows,
        )


def confusions(sheet: Sheet, runs: Mapping[str, Sequence[StoredPredictions]]) -> list[Plot]:
    """One confusion matrix per value of the contrast; none where there are too many classes to read."""
    found = [(value, confusion(members), members[0].classes) for value, members in list(runs.items())[:MOST_PANELS]]
    # Of more classes, the table gives the most frequent mix-ups only.
    return [_confusion(sheet, *item) for item in found if len(item[1]) <= COUNTED_CLASSES]


def mix_ups(counts: np.ndarray, classes: Sequence[str], most: int = 3) -> str:
    """The most frequent mistakes in words, each as a share of its true class; empty where there are none."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    shares = wrong / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    places = [divmod(int(place), len(counts)) for place in np.argsort(-wrong, axis=None, kind="stable")[:most]]
    return "; ".join(
        f"{class_name(classes, row)} taken for {class_name(classes, column)} ({100 * shares[row, column]:.0f} %)"
        for row, column in places
        if wrong[row, column] > 0
    )


def _confusion(sheet: Sheet, value: str, counts: np.ndarray, classes: Sequence[str]) -> Plot:
    size, shares = len(counts), counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [class_name(classes, place) for place in range(size)]
    rows = [
        {"true": true, "predicted": said, "images": int(counts[row, column]), "share": shares[row, column]}
        for row, true in enumerate(names)
        for column, said in enumerate(names)
    ]
    height = min(6.2, 1.6 + 0.46 * size)
    with canvas(height) as (figure, axes):
        draw_confusion(axes, counts, [shorten(text, 14) for text in names], row_inches=(height - 1) / size)
        most = mix_ups(counts, classes) or "no mistakes"
        return sheet.finish(
            figure,
            f"confusion-{sheet.analysis.design.values.index(value) + 1}",
            title=f"What {value} confuses",
            caption=f"Images, and percent of each true class (row), over all seeds. Most often: {most}.",
            alt=f"Confusion matrix of {value} over {size} classes. Most frequent mistakes: {most}.",
            rows=rows,
        )
