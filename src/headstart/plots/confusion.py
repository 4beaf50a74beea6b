"""The confusion matrix of a run or of a study's runs, readable from 2 to a few hundred classes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from headstart.plots.style import BLUE, ORANGE, RULE, counted, save_figure, save_sentence, shorten

COUNTED_CLASSES = 20
"""Up to this many classes every cell of a confusion matrix carries its count."""
NAMED_CLASSES = 60
"""Up to this many classes the cells have borders and the picture a moderate size."""


def plot_confusion_matrix(
    targets: np.ndarray,
    predictions: np.ndarray,
    classes: Sequence[str],
    path: str | Path,
    *,
    title: str = "",
) -> Path:
    """Rows are true classes, columns predictions; correct cells are blue, mistakes orange.

    Colours show the share of the row's class. Up to 20 classes the cells hold counts; with more, the most frequent
    confusions are listed beside the matrix.

    Args:
        targets: class indices, ``(N,)``.
        predictions: class indices, ``(N,)``.
        classes: names in index order.
        path: the PNG to write.
        title: above everything.
    """
    counts = confusion_counts(targets, predictions, len(classes))
    if counts.sum() == 0:
        return save_sentence("No image has been scored.", path, title=title)
    number = len(classes)
    names = [shorten(name, 24) for name in classes]
    accuracy = counts.trace() / counts.sum()

    def draw(figure: Figure) -> None:
        listed = number > COUNTED_CLASSES
        side = float(np.clip(0.42 * number + 1.6, 3.6, 9.5 if number <= NAMED_CLASSES else 12.0))
        margin = 0.07 * max(map(len, names))
        width, height = side + margin + (4.2 if listed else 0.6), side + margin + 0.6
        figure.set_size_inches(width, height)
        matrix = figure.subplots()
        draw_confusion(matrix, counts, names, row_inches=side / number)
        matrix.set_aspect("equal")
        heading = f"{counted(int(counts.sum()), 'image')}, {accuracy:.1%} correct"
        between = " " if len(title) < 16 else "\n"  # The smallest matrix has room for 45 letters.
        matrix.set_title(f"{shorten(title, 40)}:{between}{heading}" if title else heading)
        if listed:
            _list_confusions(matrix, counts, names)

    return save_figure(draw, path, dpi=150 if number <= NAMED_CLASSES else 220)


def confusion_counts(targets: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts ``(classes, classes)``, true class by row, predicted class by column."""
    pairs = np.asarray(targets, dtype=np.int64) * classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def draw_confusion(axis: Axes, counts: np.ndarray, names: Sequence[str], *, row_inches: float) -> None:
    """A confusion matrix on one pair of axes, as drawn for a run and for the runs of a study.

    Args:
        axis: empty.
        counts: ``(C, C)``, true class by row, predicted class by column; correct cells are blue, mistakes orange, as
            dark as their share of the row.
        names: of the classes, already short.
        row_inches: the height that a row will have.
    """
    number = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = list(zip(*np.nonzero(counts), strict=True))
    # Mistakes are rare: the square root keeps a few per cent visible; never so dark that a count cannot be read on it.
    darkest = 0.68 if number <= COUNTED_CLASSES else 1.0
    shade = darkest * np.sqrt(shares)
    colours = [to_rgba(BLUE if row == column else ORANGE, shade[row, column]) for row, column in cells]
    boxes = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in cells]
    axis.add_collection(PatchCollection(boxes, facecolors=colours, linewidths=0))
    axis.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5))
    for row, column in cells if number <= COUNTED_CLASSES else ():
        share = f"\n{shares[row, column]:.0%}" if number <= 10 else ""
        size = 10.6 if number <= 12 else 9
        axis.text(column, row, f"{counts[row, column]}{share}", ha="center", va="center", fontsize=size)
    # A name needs a little less than a row's height; below 3.2 points even a zoom does not help.
    row_points = 72 * row_inches
    step = math.ceil(3.6 / row_points)
    ticks = range(0, number, step)
    size = min(mpl.rcParams["ytick.labelsize"], 0.85 * row_points * step)
    axis.set_xticks(ticks, [names[tick] for tick in ticks], rotation=90 if _crowded(names) else 0, fontsize=size)
    axis.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=size)
    axis.set(xlabel="predicted", ylabel="true")
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    if number <= NAMED_CLASSES:
        axis.set_xticks(np.arange(number + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(number + 1) - 0.5, minor=True)
        axis.grid(which="minor", color=RULE, linewidth=0.6)
        axis.tick_params(which="minor", length=0)


def _list_confusions(axis: Axes, counts: np.ndarray, names: Sequence[str], limit: int = 20) -> None:
    """To the right of the matrix."""
    mistakes = counts - np.diag(counts.diagonal())
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    lines = [(mistakes.flat[k], names[k // len(names)], names[k % len(names)]) for k in order if mistakes.flat[k]]
    place: dict[str, Any] = {"xy": (1, 1), "xycoords": "axes fraction", "textcoords": "offset points", "va": "top"}
    axis.annotate("most frequent confusions", xytext=(22, 0), fontsize=10.5, weight="bold", **place)
    for position, (count, true, predicted) in enumerate(lines):
        down = -22 - 17 * position
        axis.annotate(f"{count:,}", xytext=(44, down), ha="right", weight="bold", color=ORANGE, **place)
        axis.annotate(f"{true}  →  {predicted}", xytext=(52, down), **place)
    if not lines:
        axis.annotate("none", xytext=(22, -22), **place)


def _crowded(names: Sequence[str]) -> bool:
    return len(names) * max(map(len, names)) >= 45
