"""Pictures of one run: plain arrays in, one PNG out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headstart.plots.confusion import confusion_counts, plot_confusion_matrix
from headstart.plots.style import BLUE, GRAY, INK, ORANGE, RED, add_title, counted, save_figure, save_sentence, shorten

__all__ = [
    "Span",
    "confusion_counts",
    "most_confident_errors",
    "phases_from",
    "plot_confident_errors",
    "plot_confusion_matrix",
    "plot_learning_curves",
    "plot_predicted_vs_true",
]


SPLIT_COLOURS = {"train": BLUE, "val": ORANGE}
# Of a grid of images, in inches: an image's longer side, the gap beside it, its caption with the gap below.
_SIDE, _GAP, _CAPTION = 2.1, 0.1, 0.52


class PhaseLike(Protocol):
    """What is needed of a strategy's phase."""

    @property
    def name(self) -> str: ...
    @property
    def start_epoch(self) -> int: ...
    @property
    def end_epoch(self) -> int: ...


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
    phases: Sequence[PhaseLike] = (),
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


def plot_confident_errors(
    images: Sequence[np.ndarray],
    true: Sequence[Any],
    predicted: Sequence[Any],
    probability: Sequence[float],
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    limit: int = 16,
    title: str = "",
) -> Path:
    """A grid of the images that the model got wrong with the highest confidence.

    Args:
        images: uint8 arrays ``(H, W, C)`` or ``(H, W)``, aligned with the next three; may be a lazy sequence, only
            the chosen ones are read. Correctly classified images among them are left out.
        true: class names, or indices into ``classes``.
        predicted: likewise.
        probability: of the predicted class, 0 to 1.
        path: the PNG to write.
        classes: names in index order.
        limit: at most this many images.
        title: above everything.
    """
    wrong = sum(a != b for a, b in zip(true, predicted, strict=True))
    chosen = most_confident_errors(true, predicted, probability, limit=limit)
    if not chosen:
        text = f"None of {len(true):,} images was classified wrongly." if len(true) else "No image has been scored."
        return save_sentence(text, path, title=title)

    def name(value: Any) -> str:
        return shorten(str(classes[int(value)] if classes is not None else value), 20)

    def draw(figure: Figure) -> None:
        columns = min(4, len(chosen))
        pictures = [np.asarray(images[index]) for index in chosen]
        sizes = [[_SIDE * length / max(picture.shape[:2]) for length in picture.shape[:2]] for picture in pictures]
        rows = [max(height for height, _ in sizes[start : start + columns]) for start in range(0, len(chosen), columns)]
        width, height = (_SIDE + _GAP) * columns - _GAP, sum(rows) + _CAPTION * len(rows)
        figure.set_size_inches(max(width, 4.4) + 0.3, height + 0.5)
        axis = figure.subplots()  # One for all, in inches from the top left: each axis of its own costs 40 ms.
        axis.set_axis_off()
        for place, index in enumerate(chosen):
            down, right = divmod(place, columns)
            middle = (_SIDE + _GAP) * right + _SIDE / 2
            bottom = sum(rows[: down + 1]) + _CAPTION * down
            _draw_above(axis, pictures[place], middle, bottom, *sizes[place])
            caption = f"{name(predicted[index])}  {probability[index]:.0%}"
            axis.text(middle, bottom + 0.05, caption, ha="center", va="top", fontsize=9, color=RED, weight="bold")
            axis.text(middle, bottom + 0.23, f"is {name(true[index])}", ha="center", va="top", fontsize=9, color=INK)
        axis.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        shown = (
            f"the {len(chosen)} most confident of {wrong:,} errors" if wrong > len(chosen) else counted(wrong, "error")
        )
        add_title(figure, f"{title}: {shown}" if title else shown[0].upper() + shown[1:])

    return save_figure(draw, path)


def plot_predicted_vs_true(
    targets: np.ndarray, predictions: np.ndarray, path: str | Path, *, name: str = "value", title: str = ""
) -> Path:
    """For regression: each sample as a point; the diagonal is a perfect prediction.

    Args:
        targets: true values, ``(N,)``.
        predictions: predicted values, ``(N,)``.
        path: the PNG to write.
        name: of the quantity, with its unit.
        title: above everything.
    """
    targets, predictions = np.asarray(targets, dtype=float).ravel(), np.asarray(predictions, dtype=float).ravel()
    finite = np.isfinite(targets) & np.isfinite(predictions)
    dropped = int((~finite).sum())
    targets, predictions = targets[finite], predictions[finite]
    if not targets.size:
        return save_sentence("No finite prediction to show.", path, title=title)

    def draw(figure: Figure) -> None:
        figure.set_size_inches(4.6, 4.6)
        axis = figure.subplots()
        low, high = min(targets.min(), predictions.min()), max(targets.max(), predictions.max())
        pad = 0.04 * (high - low) or 1.0
        limits = (low - pad, high + pad)
        axis.plot(limits, limits, color=GRAY, linewidth=1, linestyle="--", zorder=1)
        axis.scatter(
            targets, predictions, s=14, color=BLUE, alpha=float(np.clip(60 / len(targets), 0.12, 0.7)), linewidths=0
        )
        axis.set(xlim=limits, ylim=limits, xlabel=f"true {name}", ylabel=f"predicted {name}", aspect="equal")
        error = np.abs(targets - predictions).mean()
        spread = ((targets - targets.mean()) ** 2).sum()
        r2 = f", R² {1 - ((targets - predictions) ** 2).sum() / spread:.3f}" if spread else ""
        left_out = f", {dropped} not finite" if dropped else ""
        axis.set_title(f"{counted(len(targets), 'image')}, MAE {error:.3g}{r2}{left_out}")
        add_title(figure, title)

    return save_figure(draw, path)


def most_confident_errors(
    true: Sequence[Any], predicted: Sequence[Any], probability: Sequence[float], *, limit: int = 16
) -> list[int]:
    """Positions of the wrong predictions with the highest probability, highest first; ties in order of position."""
    wrong = [index for index, (a, b) in enumerate(zip(true, predicted, strict=True)) if a != b]
    return sorted(wrong, key=lambda index: -float(probability[index]))[:limit]


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
        points = [(float(row["epoch"]) + 1, number) for row in rows if (number := _number(row.get(name))) is not None]
        if points:
            panel, label = ("learning rate", tail) if head == "lr" else (tail, head)
            panels.setdefault(panel, {})[label] = ([x for x, _ in points], [y for _, y in points])
    order = {"loss": 0, "acc": 1, "learning rate": 9}
    return dict(sorted(panels.items(), key=lambda item: order.get(item[0], 5)))


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    number = float(value)
    return number if math.isfinite(number) else None


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
    axis.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    axis.set_axisbelow(True)
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


def _mark_epochs(axis: Axes, *, phases: Sequence[PhaseLike], best_epoch: int | None) -> None:
    if len(phases) > 1:
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.09 if axis.get_yscale() == "log" else high + 0.09 * (high - low))
        for phase in phases:
            start = max(phase.start_epoch + 0.5, axis.get_xlim()[0])
            if phase.start_epoch:
                axis.axvline(start, color=GRAY, linewidth=0.9, linestyle=":")
            axis.annotate(
                phase.name,
                (start, 1),
                xycoords=axis.get_xaxis_transform(),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                fontsize=7.5,
                color=GRAY,
                annotation_clip=True,
            )
    if best_epoch is not None:
        axis.axvline(best_epoch + 1, color=INK, linewidth=0.9, alpha=0.55)
        axis.annotate(
            "chosen",
            (best_epoch + 1, 0.02),
            xycoords=axis.get_xaxis_transform(),
            xytext=(-3, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=INK,
            alpha=0.7,
        )


def _draw_above(axis: Axes, image: np.ndarray, middle: float, bottom: float, height: float, width: float) -> None:
    """An image that stands on a line, so that the captions below a row of images line up."""
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    gray: Any = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}
    extent = (middle - width / 2, middle + width / 2, bottom, bottom - height)
    axis.imshow(image, extent=extent, interpolation="nearest", **gray)
