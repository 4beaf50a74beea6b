"""What a study's plots call and colour things: the same value looks the same in every plot."""

from typing import Any

import numpy as np

from headstart.plots.style import DASHES, MARKERS, SERIES
from headstart.study.analysis import Analysis, Metric, Setting


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


def arm_name(analysis: Analysis, value: str, setting: Setting) -> str:
    """A value of the contrast, with its setting where there are several."""
    place = analysis.design.setting_text(setting, short=True)
    return f"{value}, {place}" if place else value
