"""How every picture of Headstart looks and how it reaches the disk.

Figures are drawn on matplotlib's Agg canvas without pyplot: no window, no global state, nothing to close.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from headstart.system.atomic import atomic_write

BLUE, ORANGE, RED, INK, GRAY = "#2563a8", "#e07b26", "#c0392b", "#23282f", "#8a929c"
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


def save_figure(draw: Callable[[Figure], None], path: str | Path, *, dpi: int = 130) -> Path:
    """Let ``draw`` fill a new figure and write it as a PNG, complete or not at all.

    Args:
        draw: sets the figure's size and draws; the layout is constrained.
        path: the PNG to write.
        dpi: pixels an inch.

    Returns: ``path``.
    """
    path = Path(path)
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A class name in a script that the font lacks shows as boxes; that is no reason to fail a run.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        with atomic_write(path, "wb") as file:
            figure.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": 3})
    return path


def save_sentence(text: str, path: str | Path, *, title: str = "") -> Path:
    """A picture with one sentence, where there is nothing to draw."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(5.2, 1.8)
        figure.text(0.5, 0.46, text, ha="center", va="center", fontsize=11, color="#59626c")
        add_title(figure, title)

    return save_figure(draw, path)


def add_title(figure: Figure, title: str) -> None:
    """A bold title at the figure's top left; none if it is empty."""
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11.5, fontweight="bold", color=INK)


def shorten(text: str, length: int) -> str:
    """The text, cut to ``length`` characters with an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def counted(number: int, noun: str) -> str:
    """``1 image``, ``1,200 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
