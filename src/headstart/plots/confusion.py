"""The confusion matrix of one run, readable from 2 to a few hundred classes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from headstart.plots.style import INK, ORANGE, counted, save_figure, save_sentence, shorten

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
        _draw_matrix(matrix, counts, names, side)
        heading = f"{counted(int(counts.sum()), 'image')}, {accuracy:.1%} correct"
        matrix.set_title(f"{title}: {heading}" if title else heading)
        if listed:
            _list_confusions(matrix, counts, names)

    return save_figure(draw, path, dpi=150 if number <= NAMED_CLASSES else 220)


def confusion_counts(targets: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts ``(classes, classes)``, true class by row, predicted class by column."""
    pairs = np.asarray(targets, dtype=np.int64) * classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _draw_matrix(axis: Axes, counts: np.ndarray, names: Sequence[str], side: float) -> None:
    number = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Mistakes are rare: the square root keeps a few per cent visible.
    strength = np.sqrt(shares)
    diagonal = np.eye(number, dtype=bool)
    for mask, colours in ((~diagonal, "Oranges"), (diagonal, "Blues")):
        # White at 0, and never so dark that a count cannot be read on it.
        colormap = ListedColormap(np.vstack([[1, 1, 1, 1], mpl.colormaps[colours](np.linspace(0.08, 0.85, 255))]))
        axis.imshow(np.ma.array(strength, mask=~mask), cmap=colormap, norm=Normalize(0, 1), interpolation="nearest")
    if number <= COUNTED_CLASSES:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if strength[row, column] > 0.75 else INK
            share = f"\n{shares[row, column]:.0%}" if number <= 10 else ""
            axis.text(
                column,
                row,
                f"{counts[row, column]}{share}",
                ha="center",
                va="center",
                color=colour,
                fontsize=9 if number <= 12 else 7.5,
            )
    # A name needs a little less than a row's height; below 3.2 points even a zoom does not help.
    row_points = side * 72 / number
    step = math.ceil(3.6 / row_points)
    ticks = range(0, number, step)
    size = min(9.0, 0.85 * row_points * step)
    axis.set_xticks(ticks, [names[tick] for tick in ticks], rotation=90 if _crowded(names) else 0, fontsize=size)
    axis.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=size)
    for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        label.set_parse_math(False)
    axis.set(xlabel="predicted", ylabel="true")
    axis.tick_params(length=0)
    if number <= NAMED_CLASSES:
        axis.set_xticks(np.arange(number + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(number + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="#e6e9ec", linewidth=0.6)
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
    return len(names) > 4 and max(map(len, names)) > 3
