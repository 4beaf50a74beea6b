"""How plots look, and how one matplotlib figure becomes a PNG, an SVG file and an SVG that follows the page's theme."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from headstart.study.analysis import Analysis, Metric, Setting
from headstart.system.atomic import atomic_write, write_rows

INK, MUTED, RULE, PAPER = "#1a1f27", "#5b6470", "#d5d9df", "#fefefd"
SERIES = ("#1d5fa6", "#b8480f", "#20755a", "#83449a", "#85600a", "#ac3157", "#2f6f86", "#555c68")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1)), "-", (0, (5, 2)), "-")

# Inches: 430 units of the SVG, so that on a phone nothing shrinks by more than a sixth.
WIDTH = 5.97
_LEGEND_ROW = 0.24

_STYLE: dict[str, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "headstart",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "grid.alpha": 0.7,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "xtick.minor.visible": False,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "figure.dpi": 72,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

_THEME = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"} | {
    colour: f"--s{place}" for place, colour in enumerate(SERIES, start=1)
}


@dataclass(frozen=True)
class Plot:
    """One figure of the report.

    Attributes:
        name: of its files.
        title: a short heading.
        caption: how to read it.
        alt: what it shows, in words, for those who cannot see it.
        rows: its data.
        svg: the drawing with colours as the page's variables.
    """

    name: str
    title: str
    caption: str
    alt: str
    rows: tuple[dict[str, Any], ...]
    svg: str


@contextmanager
def canvas(height: float, *, legend: bool = False) -> Iterator[tuple[Figure, Axes]]:
    """A figure of the report's width with one pair of axes, in the report's style.

    Args:
        height: in inches, without the room for a legend.
        legend: leave room for a row of :func:`legend_above`.
    """
    with mpl.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=(WIDTH, height + (0.35 if legend else 0.0)), layout="constrained")
        yield figure, figure.add_subplot()


def legend_above(figure: Figure, axes: Axes, *, columns: int = 3) -> None:
    """Put the key of the series above the plot, where it covers nothing; the figure grows with its rows."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        rows = math.ceil(len(labels) / columns)
        figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * (rows - 1))
        figure.legend(handles, labels, loc="outside upper left", ncols=min(columns, len(labels)), handlelength=2.2)


def finish(
    figure: Figure, folder: Path, *, name: str, title: str, caption: str, alt: str, rows: Sequence[dict[str, Any]]
) -> Plot:
    """Write ``name.png``, ``.svg`` and ``.csv`` and return the plot for the page. Call inside :func:`canvas`."""
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    with atomic_write(folder / f"{name}.svg") as file:
        file.write(svg.replace("<defs>", f'<rect width="100%" height="100%" fill="{PAPER}"/>\n <defs>', 1))
    # The layout is found by now and the same for both files.
    figure.set_layout_engine("none")
    image = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(image, format="png", dpi=150, facecolor=PAPER, metadata={"Software": None})
    with atomic_write(folder / f"{name}.png", "wb") as file:
        file.write(image.getvalue())
    write_rows(folder / f"{name}.csv", rows)
    return Plot(name, title, caption, alt, tuple(rows), themed(svg, f"plot-{name}"))


def themed(svg: str, name: str) -> str:
    """An SVG for the page: its colours and font are the page's, its ids its own, its size the column's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| version="[^"]*"', "", svg)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"font: (?:(bold|\d00) )?([\d.]+)px [^;\"]+", _font, svg)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = svg.replace(' style="stroke-linejoin: round; stroke-linecap: butt"', "")
    return re.sub(r">\s+<", "><", svg).strip()


def row_names(axes: Axes, names: Sequence[str], *, ink: bool = True) -> None:
    """Name the rows of a plot, the first on top."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK if ink else MUTED)
    axes.spines["left"].set_visible(False)


def look(analysis: Analysis, value: str) -> tuple[str, str]:
    """The colour and the marker of a value of the contrast: the same in every plot, and no other's up to 64."""
    turn, place = divmod(analysis.design.values.index(value), len(SERIES))
    return SERIES[place], MARKERS[(place + turn) % len(MARKERS)]


def dash(analysis: Analysis, value: str) -> Any:
    """The line style of a value, so that colour is not the only difference."""
    return DASHES[analysis.design.values.index(value) % len(DASHES)]


def setting_columns(analysis: Analysis, setting: Setting) -> dict[str, str]:
    """A setting as columns of a CSV file."""
    return dict(zip(analysis.design.axes, setting, strict=True))


def scaled(metric: Metric, values: Any) -> Any:
    """Values as they are drawn: percentages as 0 to 100."""
    scale = 100.0 if metric.percent else 1.0
    return scale * np.asarray(values, dtype=np.float64)


def axis_text(metric: Metric) -> str:
    """The label of an axis that shows a metric."""
    return f"{metric.label}, %" if metric.percent else metric.label


def capital(text: str) -> str:
    """Text with a capital first letter."""
    return text[:1].upper() + text[1:]


def arm_name(analysis: Analysis, value: str, setting: Setting) -> str:
    """A value of the contrast, with its setting where there are several."""
    place = analysis.design.setting_text(setting, short=True)
    return f"{value}, {place}" if place else value


def _font(match: re.Match[str]) -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px; font-family: inherit"
