"""Plots of predictions: reliability, and which class is taken for which."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from headstart.plots.confusion import COUNTED_CLASSES, draw_confusion
from headstart.plots.style import MUTED, Plot, canvas, finish, legend_above, shorten
from headstart.runs.reader import StoredPredictions
from headstart.study.analysis import Analysis
from headstart.study.labels import dash, look
from headstart.study.mistakes import calibration_errors, class_name, confusion, pooled_calibration

MOST_PANELS = 4


def reliability(
    analysis: Analysis, runs: Mapping[str, Sequence[StoredPredictions]], folder: Path, prefix: str
) -> Plot | None:
    """How often each value is right, by how sure it says it is."""
    if not runs:
        return None
    rows = []
    with canvas(3.4, legend=True) as (figure, axes):
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        for value, members in runs.items():
            pooled, errors = pooled_calibration(members), calibration_errors(members)
            colour, marker = look(analysis, value)
            axes.plot(100 * pooled.confidence, 100 * pooled.accuracy, marker=marker, markersize=6, color=colour,
                      linestyle=dash(analysis, value), label=f"{value}, error {100 * errors.mean:.1f} %")  # fmt: skip
            rows += [
                {
                    "value": value,
                    "confidence": said,
                    "accuracy": true,
                    "images": count,
                    "calibration_error": errors.mean,
                }
                for said, true, count in zip(pooled.confidence, pooled.accuracy, pooled.count, strict=True)
            ]
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.set_xlabel("how sure the model says it is, %")
        axes.set_ylabel("how often it is right, %")
        legend_above(figure, axes, columns=1)
        errors_text = [f"{value} {100 * calibration_errors(members).mean:.1f} %" for value, members in runs.items()]
        return finish(
            figure,
            folder,
            name=f"{prefix}calibration",
            title="When it says 90 %, is it right nine times in ten?",
            caption="On the dashed line confidence and truth agree; below it a model is too sure of itself. The "
            "error is the mean gap over all images (expected calibration error, ten bins, mean over runs).",
            alt=f"Reliability curves. Expected calibration error: {'; '.join(errors_text)}.",
            rows=rows,
        )


def confusions(
    analysis: Analysis, runs: Mapping[str, Sequence[StoredPredictions]], folder: Path, prefix: str
) -> list[Plot]:
    """One confusion matrix per value of the contrast; none where there are too many classes to read."""
    plots = []
    for value, members in list(runs.items())[:MOST_PANELS]:
        counts = confusion(members)
        if len(counts) <= COUNTED_CLASSES:  # of more, the table gives the most frequent mix-ups only
            name = f"{prefix}confusion-{analysis.design.values.index(value) + 1}"
            plots.append(_confusion(value, counts, members[0].classes, folder, name))
    return plots


def mix_ups(counts: np.ndarray, classes: Sequence[str], most: int = 5) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: true class, predicted class, how often, and as a share of the true class."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    totals = np.maximum(counts.sum(axis=1), 1)
    places = [divmod(int(place), len(counts)) for place in np.argsort(-wrong, axis=None, kind="stable")[:most]]
    return [
        (
            class_name(classes, row),
            class_name(classes, column),
            int(wrong[row, column]),
            wrong[row, column] / totals[row],
        )
        for row, column in places
        if wrong[row, column] > 0
    ]


def _confusion(value: str, counts: np.ndarray, classes: Sequence[str], folder: Path, name: str) -> Plot:
    size, shares = len(counts), counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [class_name(classes, place) for place in range(size)]
    rows = [
        {
            "true": names[row],
            "predicted": names[column],
            "images": int(counts[row, column]),
            "share": shares[row, column],
        }
        for row in range(size)
        for column in range(size)
    ]
    height = min(6.2, 1.6 + 0.46 * size)
    with canvas(height) as (figure, axes):
        draw_confusion(axes, counts, [shorten(text, 14) for text in names], row_inches=(height - 1) / size)
        worst = [
            f"{true} taken for {said} ({100 * share:.0f} %)" for true, said, _, share in mix_ups(counts, classes, 3)
        ]
        most = "; ".join(worst) if worst else "no mistakes"
        return finish(
            figure,
            folder,
            name=name,
            title=f"What {value} confuses",
            caption=f"Images, and percent of each true class (row), over all seeds. Most often: {most}.",
            alt=f"Confusion matrix of {value} over {size} classes. Most frequent mistakes: {most}.",
            rows=rows,
        )
