"""How every picture of Headstart looks, of a run and of a study, and how it reaches the disk.

Figures are drawn without pyplot: no window, no global state, nothing to close. Colours are few and named, so that an
SVG inside a page can follow the page's theme.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from headstart.system.atomic import atomic_write, write_rows
from headstart.system.names import legible

INK, MUTED, RULE, PAPER = "#1a1f27", "#5b6470", "#d5d9df", "#fefefd"
SERIES = ("#1d5fa6", "#b8480f", "#20755a", "#83449a", "#85600a", "#ac3157", "#2f6f86", "#555c68")
BLUE, ORANGE, RED = SERIES[0], SERIES[1], SERIES[5]
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1)), "-", (0, (5, 2)), "-")

# Inches: 430 units of the SVG, so that on a phone nothing shrinks by more than a sixth.
WIDTH = 5.97
_LEGEND_ROW = 0.24
_LONG_NAME = 24  # characters

STYLE: Any = {
    "text.parse_math": False,  # A class may be called "US$ and CA$".
    "svg.fonttype": "none",
    "svg.hashsalt": "headstart",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.linewidth": 1.0,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
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
# A picture of a run holds several panels: everything is a size smaller than in a plot that fills the report's column.
SMALL: Any = STYLE | {
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
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
    with mpl.rc_context(STYLE):
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
    _write_png(figure, folder / f"{name}.png", dpi=150)
    write_rows(folder / f"{name}.csv", rows)
    return Plot(name, title, caption, alt, tuple(rows), themed(svg, f"plot-{name}"))


def save_figure(draw: Callable[[Figure], None], path: str | Path, *, dpi: int = 130) -> Path:
    """Let ``draw`` fill a new figure and write it as a PNG, complete or not at all.

    Args:
        draw: sets the figure's size and draws; the layout is constrained.
        path: the PNG to write.
        dpi: pixels an inch.

    Returns: ``path``.
    """
    path = Path(path)
    with mpl.rc_context(SMALL), warnings.catch_warnings():
        # A class name in a script that the font lacks shows as boxes; that is no reason to fail a run.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        figure = Figure(layout="constrained")
        draw(figure)
        _write_png(figure, path, dpi=dpi)
    return path


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
    """Name the rows of a plot, the first on top; a long name of two parts takes two lines."""
    lines = [name.replace(", ", ",\n") if len(name) > _LONG_NAME else name for name in names]
    axes.set_yticks(range(len(names)), lines)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK if ink else MUTED)
    axes.spines["left"].set_visible(False)


def save_sentence(text: str, path: str | Path, *, title: str = "") -> Path:
    """A picture with one sentence, where there is nothing to draw."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(5.2, 1.8)
        figure.text(0.5, 0.46, text, ha="center", va="center", fontsize=11, color=MUTED)
        add_title(figure, title)

    return save_figure(draw, path)


def add_title(figure: Figure, title: str) -> None:
    """A bold title at the figure's top left, as long as it is wide; none if it is empty."""
    if title:
        fitting = shorten(title, int(10 * figure.get_figwidth()))
        figure.suptitle(fitting, x=0.012, ha="left", fontsize=11.5, fontweight="bold", color=INK)


def shorten(text: str, length: int) -> str:
    """The text as a font can show it, cut to ``length`` characters with an ellipsis."""
    text = legible(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def counted(number: int, noun: str) -> str:
    """``1 image``, ``1,200 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def capital(text: str) -> str:
    """Text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _write_png(figure: Figure, path: Path, *, dpi: int) -> None:
    FigureCanvasAgg(figure)
    # Drawn before a file is opened: a drawing that fails leaves nothing behind.
    image = io.BytesIO()
    figure.savefig(
        image, format="png", dpi=dpi, facecolor=PAPER, metadata={"Software": None}, pil_kwargs={"compress_level": 3}
    )
    with atomic_write(path, "wb") as file:
        file.write(image.getvalue())


def _font(match: re.Match[str]) -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px; font-family: inherit"
