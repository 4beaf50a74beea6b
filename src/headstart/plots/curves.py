"""Learning curves of one run, from the rows of its ``metrics.csv``."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headstart.plots.style import BLUE, INK, MUTED, ORANGE, add_title, save_figure, save_sentence
from headstart.runs.reader import number

SPLIT_COLOURS = {"train": BLUE, "val": ORANGE}


@dataclass(frozen=True)
class Span:
    """A named stretch of epochs; see :func:`phases_from`."""

    name: str
    start_epoch: int
    end_epoch: int


def plot_learning_curves(
    metrics_rows: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    phases: Sequence[Span] = (),
    best_epoch: int | None = None,
    title: str = "",
) -> Path:
    """One panel a metric, training and validation together, and one for the learning rates.

    Args:
        metrics_rows: rows of ``metrics.csv``: ``epoch`` (from 0), ``train/loss``, ``val/acc``, ``lr/<group>`` …;
            values may be missing, None, empty, or NaN.
        path: the PNG to write.
        phases: their borders are drawn when there is more than one.
        best_epoch: the epoch (from 0) whose checkpoint was chosen; marked.
        title: above everything.
    """
    panels = _panels(metrics_rows)
    if not panels:
        return save_sentence("No epoch has been recorded yet.", path, title=title)

    def draw(figure: Figure) -> None:
        columns = min(len(panels), 3)
        rows = math.ceil(len(panels) / columns)
        figure.set_size_inches(4.1 * columns + 0.4, 3.1 * rows + (0.35 if title else 0.1))
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for axis, (name, series) in zip(axes, panels.items(), strict=False):
            _draw_panel(axis, name, series)
            _mark_epochs(axis, phases=phases, best_epoch=best_epoch)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        add_title(figure, title)

    return save_figure(draw, path)


def phases_from(rows: Iterable[Mapping[str, Any]]) -> tuple[Span, ...]:
    """The phases that rows of ``metrics.csv`` went through, from their ``phase`` and ``epoch`` columns."""
    spans: list[Span] = []
    for row in rows:
        name, epoch = str(row.get("phase") or ""), int(float(row["epoch"]))
        if spans and spans[-1].name == name:
            spans[-1] = Span(name, spans[-1].start_epoch, epoch + 1)
        else:
            spans.append(Span(name, epoch, epoch + 1))
    return tuple(spans)


Series = dict[str, tuple[list[float], list[float]]]


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    """Metric name to its series (``train``, ``val``, or group of ``lr``), each as epochs and values."""
    panels: dict[str, Series] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        head, separator, tail = name.partition("/")
        if not separator:
            continue
        points = [(float(row["epoch"]) + 1, y) for row in rows if (y := number(row.get(name))) is not None]
        if points:
            panel, label = ("learning rate", tail) if head == "lr" else (tail, head)
            panels.setdefault(panel, {})[label] = ([x for x, _ in points], [y for _, y in points])
    order = {"loss": 0, "acc": 1, "learning rate": 9}
    return dict(sorted(panels.items(), key=lambda item: order.get(item[0], 5)))


def _draw_panel(axis: Axes, name: str, series: Series) -> None:
    rates = name == "learning rate"
    for position, (label, (epochs, values)) in enumerate(_distinct(series).items() if rates else series.items()):
        marker = "o" if len(epochs) <= 15 else None
        colour = (
            mpl.colormaps["viridis"](0.08 + 0.8 * position / max(len(series) - 1, 1))
            if rates
            else SPLIT_COLOURS.get(label)
        )
        axis.plot(epochs, values, marker=marker, markersize=3.5, label=label, color=colour)
    axis.set_title(name)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    axis.grid(visible=False, axis="x")
    everything = [value for _, values in series.values() for value in values]
    positive = [value for value in everything if value > 0]
    if rates and positive and max(positive) > 30 * min(positive):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-"))
    elif name == "loss" and min(everything) >= 0:
        # Of flat losses the automatic range would be too tight to hold the markers.
        axis.set_ylim(0, max(1.06 * max(everything), 1e-6))
    handles, _ = axis.get_legend_handles_labels()
    if len(handles) > 1 or rates:
        axis.legend(loc="best", ncols=1 if len(handles) <= 6 else 2)


def _distinct(series: Series) -> Series:
    """Groups with the same rates throughout become one line, labelled by the first and the number of the rest."""
    same: dict[tuple[tuple[float, ...], tuple[float, ...]], list[str]] = {}
    for label, (epochs, values) in series.items():
        same.setdefault((tuple(epochs), tuple(values)), []).append(label)
    return {
        labels[0] if len(labels) == 1 else f"{labels[0]} + {len(labels) - 1}": (list(epochs), list(values))
        for (epochs, values), labels in same.items()
    }


def _mark_epochs(axis: Axes, *, phases: Sequence[Span], best_epoch: int | None) -> None:
    note: Any = {"xycoords": axis.get_xaxis_transform(), "textcoords": "offset points", "fontsize": 7.5}
    if len(phases) > 1:
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.09 if axis.get_yscale() == "log" else high + 0.09 * (high - low))
        for phase in phases:
            start = max(phase.start_epoch + 0.5, axis.get_xlim()[0])
            if phase.start_epoch:
                axis.axvline(start, color=MUTED, linewidth=0.9, linestyle=":")
            axis.annotate(phase.name, (start, 1), xytext=(3, -2), va="top", color=MUTED, annotation_clip=True, **note)
    if best_epoch is not None:
        look: Any = {"rotation": 90, "ha": "right", "va": "bottom", "alpha": 0.7}
        axis.axvline(best_epoch + 1, color=INK, linewidth=0.9, alpha=0.55)
        axis.annotate("chosen", (best_epoch + 1, 0.02), xytext=(-3, 0), color=INK, **look, **note)
