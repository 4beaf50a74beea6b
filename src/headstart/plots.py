"""Pictures of one run: plain arrays in, one PNG out.

Figures are drawn with matplotlib's Agg canvas and no pyplot, so there is no window, no global state, and
nothing to close. Files appear complete or not at all.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headstart.atomic import atomic_write

BLUE, ORANGE, RED, INK, GRAY = "#2563a8", "#e07b26", "#c0392b", "#23282f", "#8a929c"
SPLIT_COLOURS = {"train": BLUE, "val": ORANGE}
STYLE: Any = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "text.parse_math": False,  # A class may be called "US$ and CA$".
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b9c0c8",
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "xtick.color": "#59626c",
    "ytick.color": "#59626c",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
COUNTED_CLASSES = 20
"""Up to this many classes every cell of a confusion matrix carries its count."""
NAMED_CLASSES = 60
"""Up to this many classes the axes carry all names; above, names are thinned out where they would overlap."""


class PhaseLike(Protocol):
    """What is needed of a strategy's phase."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def start_epoch(self) -> int: ...  # noqa: D102
    @property
    def end_epoch(self) -> int: ...  # noqa: D102


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
        return _say("No epoch has been recorded yet.", path, title=title)

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
        _title(figure, title)

    return _save(draw, path)


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
        return _say("No image has been scored.", path, title=title)
    number = len(classes)
    names = [_shorten(name, 24) for name in classes]
    accuracy = counts.trace() / counts.sum()

    def draw(figure: Figure) -> None:
        listed = number > COUNTED_CLASSES
        side = float(np.clip(0.42 * number + 1.6, 3.6, 9.5)) if number <= NAMED_CLASSES else 12.0
        margin = 0.075 * max(map(len, names))
        figure.set_size_inches(side + margin + (3.6 if listed else 0.6), side + margin + 0.5)
        matrix, *others = figure.subplots(
            1, 2 if listed else 1, width_ratios=[side, 3.2] if listed else None, squeeze=False
        )[0]
        _draw_matrix(matrix, counts, names)
        matrix.set_title(f"{counts.sum():,} images, {accuracy:.1%} correct")
        if others:
            _list_confusions(others[0], counts, names)
        _title(figure, title)

    return _save(draw, path, dpi=150)


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
        return _say(text, path, title=title)

    def name(value: Any) -> str:
        return _shorten(str(classes[int(value)] if classes is not None else value), 20)

    def draw(figure: Figure) -> None:
        columns = min(4, len(chosen))
        rows = math.ceil(len(chosen) / columns)
        figure.set_size_inches(2.2 * max(columns, 2) + 0.2, 2.65 * rows + 0.6)
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, index in zip(axes, chosen, strict=False):
            image = np.asarray(images[index])
            image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
            axis.imshow(image, cmap="gray" if image.ndim == 2 else None, interpolation="nearest", vmin=0, vmax=255)
            note = {"transform": axis.transAxes, "ha": "center", "va": "top", "fontsize": 9}
            axis.text(
                0.5, -0.03, f"{name(predicted[index])}  {probability[index]:.0%}", color=RED, weight="bold", **note
            )
            axis.text(0.5, -0.14, f"is {name(true[index])}", color=INK, **note)
        shown = (
            f"the {len(chosen)} most confident of {wrong:,} errors" if wrong > len(chosen) else _count(wrong, "error")
        )
        _title(figure, f"{title}: {shown}" if title else shown[0].upper() + shown[1:])

    return _save(draw, path)


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
        return _say("No finite prediction to show.", path, title=title)

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
        axis.set_title(f"{_count(len(targets), 'image')}, MAE {error:.3g}{r2}{left_out}")
        _title(figure, title)

    return _save(draw, path)


def confusion_counts(targets: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts ``(classes, classes)``, true class by row, predicted class by column."""
    pairs = np.asarray(targets, dtype=np.int64) * classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


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
    positive = [value for _, values in series.values() for value in values if value > 0]
    if rates and positive and max(positive) > 30 * min(positive):
        axis.set_yscale("log")
    elif name == "loss":
        axis.set_ylim(bottom=0 if min(min(values) for _, values in series.values()) >= 0 else None)
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
    for index, phase in enumerate(phases if len(phases) > 1 else ()):
        if index:
            axis.axvline(phase.start_epoch + 0.5, color=GRAY, linewidth=0.9, linestyle=":")
        middle = (phase.start_epoch + phase.end_epoch + 1) / 2
        low, high = axis.get_xlim()
        if low <= middle <= high:
            axis.text(
                middle,
                0.985,
                phase.name,
                transform=axis.get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize=7.5,
                color=GRAY,
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


def _draw_matrix(axis: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
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
    step = 1 if number <= NAMED_CLASSES else math.ceil(number / 100)
    ticks = range(0, number, step)
    size = 9 if number <= 15 else 7.5 if number <= 40 else 5.5
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
    axis.set_axis_off()
    mistakes = counts - np.diag(counts.diagonal())
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    lines = [(mistakes.flat[k], names[k // len(names)], names[k % len(names)]) for k in order if mistakes.flat[k]]
    axis.set_title("most frequent confusions" if lines else "no confusions", loc="left")
    for position, (count, true, predicted) in enumerate(lines):
        y = 0.985 - position * min(0.045, 0.98 / limit)
        axis.text(
            0.09,
            y,
            f"{count}",
            transform=axis.transAxes,
            va="top",
            ha="right",
            fontsize=8.5,
            weight="bold",
            color=ORANGE,
        )
        axis.text(0.13, y, f"{true}  →  {predicted}", transform=axis.transAxes, va="top", fontsize=8.5)


def _crowded(names: Sequence[str]) -> bool:
    return len(names) > 4 and max(map(len, names)) > 3


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _title(figure: Figure, title: str) -> None:
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11.5, fontweight="bold", color=INK)


def _say(text: str, path: str | Path, *, title: str = "") -> Path:
    """A picture with one sentence, where there is nothing to draw."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(5.2, 1.8)
        figure.text(0.5, 0.46, text, ha="center", va="center", fontsize=11, color="#59626c")
        _title(figure, title)

    return _save(draw, path)


def _save(draw: Callable[[Figure], None], path: str | Path, *, dpi: int = 130) -> Path:
    path = Path(path)
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A class name in a script that the font lacks shows as boxes; that is no reason to fail a run.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        with atomic_write(path, "wb") as file:
            figure.savefig(file, format="png", dpi=dpi)
    return path
