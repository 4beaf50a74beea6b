"""What a study's plots call and colour things: the same value looks the same in every plot."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headstart.plots.style import DASHES, MARKERS, PAPER, SERIES, Plot, finish
from headstart.study.analysis import Analysis, Arm, Difference, Metric


@dataclass(frozen=True)
class Sheet:
    """One table's plots: what they show, and the folder and the first part of the name of their files."""

    analysis: Analysis
    folder: Path
    prefix: str = ""

    def look(self, value: str) -> tuple[str, str, Any]:
        """Colour, marker and line style of a value of the contrast; no other's up to 64."""
        place = self.analysis.design.values.index(value)
        turn, colour = divmod(place, len(SERIES))
        return SERIES[colour], MARKERS[(colour + turn) % len(MARKERS)], DASHES[place % len(DASHES)]

    def line(self, axes: Axes, value: str, x: Any, y: Any, *, marked: bool = True, label: str = "") -> None:
        """Draw the line of a value, named in the key."""
        colour, marker, dash = self.look(value)
        mark = marker if marked else ""
        axes.plot(x, y, color=colour, linestyle=dash, label=label or value, marker=mark, markersize=6)

    def band(self, axes: Axes, value: str, x: Any, low: Any, high: Any) -> None:
        """Shade what lies between two lines of a value."""
        axes.fill_between(x, low, high, color=self.look(value)[0], alpha=0.14, linewidth=0)

    def interval(
        self, axes: Axes, value: str, place: float, numbers: tuple[float, float | None, float | None], *, filled: bool
    ) -> None:
        """Draw a mean, its low and its high end in one row."""
        colour, marker, _ = self.look(value)
        mean, low, high = numbers
        metric = self.analysis.metric
        if low is not None and high is not None:
            axes.plot(scaled(metric, [low, high]), [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
        face = colour if filled else PAPER
        axes.plot([scaled(metric, mean)], [place], marker, color=colour, markerfacecolor=face, markersize=8.5, mew=2)

    def name(self, item: Arm | Difference) -> str:
        """A value of the contrast, with its setting where there are several."""
        place = self.analysis.design.setting_text(item.setting, short=True)
        return f"{item.value}, {place}" if place else item.value

    def columns(self, item: Arm | Difference) -> dict[str, Any]:
        """A value and its setting as columns of a CSV file."""
        return {"value": item.value, **dict(zip(self.analysis.design.axes, item.setting, strict=True))}

    def finish(self, figure: Figure, name: str, **words: Any) -> Plot:
        """Write the plot's files; see :func:`headstart.plots.style.finish`."""
        return finish(figure, self.folder, name=f"{self.prefix}{name}", **words)


def scaled(metric: Metric, values: Any) -> Any:
    """Values as they are drawn: percentages as 0 to 100."""
    return (100.0 if metric.percent else 1.0) * np.asarray(values, dtype=np.float64)


def axis_text(metric: Metric) -> str:
    """The label of an axis that shows a metric."""
    return f"{metric.label}, %" if metric.percent else metric.label
