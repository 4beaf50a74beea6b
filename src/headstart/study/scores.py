"""The report's plots of scores, differences, costs, shots, learning and drift. Each takes an analysis and a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from headstart.plots.style import INK, MUTED, PAPER, Plot, canvas, capital, finish, legend_above, row_names
from headstart.runs.reader import RunRecord
from headstart.study.analysis import ALPHA, Analysis, Arm, Difference, Metric, cost_text
from headstart.study.labels import arm_name, axis_text, look, scaled, setting_columns
from headstart.study.statistics import pareto_front
from headstart.study.verdict import arms_in, main_setting

MOST_ROWS = 24
"""A plot with more rows than this says less than the table does: it is left out."""

COST_WORDS = {
    "total_seconds": "seconds to train",
    "trainable_parameters": "trainable parameters",
    "peak_memory_bytes": "peak memory",
    "stored_bytes": "bytes stored per task",
}

_LOG_FROM = 20.0


def scores(analysis: Analysis, folder: Path, prefix: str) -> Plot | None:
    """Every run as a dot, with mean and interval of each arm."""
    arms, metric = analysis.arms, analysis.metric
    if not 2 <= len(arms) <= MOST_ROWS:
        return None
    rows = [
        {
            "value": arm.value,
            **setting_columns(analysis, arm.setting),
            "seed": seed,
            metric.name: run.metrics[metric.name],
        }
        for arm in arms
        for seed, run in _runs(analysis, arm).items()
    ]
    with canvas(0.85 + 0.46 * len(arms)) as (figure, axes):
        for place, arm in enumerate(arms):
            colour, marker = look(analysis, arm.value)
            seen = [run.metrics[metric.name] for run in _runs(analysis, arm).values()]
            shift = np.linspace(-0.16, 0.16, len(seen)) if len(seen) > 1 else np.zeros(1)
            axes.scatter(scaled(metric, seen), place + shift, s=16, color=colour, alpha=0.45, linewidths=0)
            mean = arm.metrics[metric.name]
            _interval(axes, metric, (mean.mean, mean.low, mean.high), place, colour, marker)
        row_names(axes, [arm_name(analysis, arm.value, arm.setting) for arm in arms])
        axes.set_xlabel(axis_text(metric))
        means = [
            f"{arm_name(analysis, arm.value, arm.setting)} {metric.text(arm.metrics[metric.name].mean)}" for arm in arms
        ]
        return finish(
            figure,
            folder,
            name=f"{prefix}scores",
            title=f"{capital(metric.label)} of every run",
            caption="Small dots are single runs, one per seed; the large mark is their mean with its 95 % interval.",
            alt=f"Dot plot of {metric.label}. Means: {'; '.join(means)}.",
            rows=rows,
        )


def differences(
    analysis: Analysis, items: Sequence[Difference], reference: str, folder: Path, prefix: str, *, name: str
) -> Plot | None:
    """Paired differences from a reference with their intervals, and a line at zero."""
    shown = [item for item in items if item.paired is not None]
    if not shown or len(shown) > MOST_ROWS:
        return None
    metric = analysis.metric
    rows = [_difference_row(analysis, item) for item in shown]
    with canvas(0.95 + 0.46 * len(shown)) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=1.2)
        for place, item in enumerate(shown):
            if item.paired is None:
                continue
            colour, marker = look(analysis, item.value)
            sure = item.verdict in ("better", "worse")
            numbers = (item.paired.mean, item.paired.low, item.paired.high)
            _interval(axes, metric, numbers, place, colour, marker, filled=sure)
        row_names(axes, [arm_name(analysis, item.value, item.setting) for item in shown])
        unit = ", points" if metric.percent else ""
        axes.set_xlabel(f"difference from {reference} in {metric.label}{unit}")
        parts = [
            f"{arm_name(analysis, item.value, item.setting)} {metric.gap(item.paired.mean)} ({item.verdict})"
            for item in shown
            if item.paired
        ]
        return finish(
            figure,
            folder,
            name=f"{prefix}{name}",
            title=f"Difference from {reference}",
            caption=f"Mean over paired seeds with its 95 % bootstrap interval. Filled marks are significant "
            f"(p < {ALPHA} after correction); hollow ones are not.",
            alt=f"Paired differences from {reference} in {metric.label}{unit}: {'; '.join(parts)}.",
            rows=rows,
        )


def cost(analysis: Analysis, name: str, folder: Path, prefix: str) -> Plot | None:
    """Score against one cost in the main setting, with the Pareto front."""
    metric, setting = analysis.metric, main_setting(analysis)
    arms = [arm for arm in arms_in(analysis, setting) if name in arm.costs and metric.name in arm.metrics]
    if len(arms) < 2:
        return None
    sign = 1 if metric.higher_is_better else -1
    front = pareto_front([arm.costs[name].mean for arm in arms], [sign * arm.metrics[metric.name].mean for arm in arms])
    words = COST_WORDS[name]
    rows = [
        {
            "value": arm.value,
            **setting_columns(analysis, setting),
            name: arm.costs[name].mean,
            metric.name: arm.metrics[metric.name].mean,
            "on_pareto_front": place in front,
        }
        for place, arm in enumerate(arms)
    ]
    with canvas(3.1, legend=True) as (figure, axes):
        line = [
            (arms[place].costs[name].mean, scaled(metric, arms[place].metrics[metric.name].mean)) for place in front
        ]
        axes.plot(*zip(*line, strict=True), color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        for arm in arms:
            colour, marker = look(analysis, arm.value)
            mean = arm.metrics[metric.name]
            x = arm.costs[name].mean
            if mean.low is not None and mean.high is not None:
                axes.plot([x, x], scaled(metric, [mean.low, mean.high]), color=colour, linewidth=1.6)
            axes.plot(
                x, scaled(metric, mean.mean), marker, color=colour, markersize=9, label=arm.value, linestyle="none"
            )
        _cost_axis(axes, name, [arm.costs[name].mean for arm in arms])
        axes.margins(x=0.12, y=0.15)
        axes.set_ylabel(axis_text(metric))
        axes.set_xlabel(words)
        legend_above(figure, axes)
        best = ", ".join(arms[place].value for place in front)
        where = analysis.design.setting_text(setting)
        numbers = [
            f"{arm.value} {metric.text(arm.metrics[metric.name].mean)} at {cost_text(name, arm.costs[name].mean)}"
            for arm in arms
        ]
        return finish(
            figure,
            folder,
            name=f"{prefix}cost-{name.replace('_', '-')}",
            title=f"{capital(metric.label)} against {words}",
            caption=f"Up and to the left is better. The dashed line joins the choices that no other beats on both "
            f"counts: {best}." + (f" Shown for {where}." if where else ""),
            alt=f"{capital(metric.label)} against {words}: {'; '.join(numbers)}. Pareto front: {best}.",
            rows=rows,
        )


def _difference_row(analysis: Analysis, item: Difference) -> dict[str, Any]:
    paired = item.paired
    row: dict[str, Any] = {"value": item.value, **setting_columns(analysis, item.setting), "verdict": item.verdict}
    if paired is not None:
        row |= {"difference": paired.mean, "low": paired.low, "high": paired.high, "n": paired.n, "p": paired.p}
    return row | {"p_adjusted": item.p_adjusted, "comparisons": item.family}


def _interval(
    axes: Axes,
    metric: Metric,
    numbers: tuple[float, float | None, float | None],
    place: float,
    colour: str,
    marker: str,
    *,
    filled: bool = True,
) -> None:
    mean, low, high = numbers
    if low is not None and high is not None:
        axes.plot(scaled(metric, [low, high]), [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
    face = colour if filled else PAPER
    axes.plot([scaled(metric, mean)], [place], marker, color=colour, markerfacecolor=face, markersize=8.5, mew=2)


def _cost_axis(axes: Axes, name: str, values: Sequence[float]) -> None:
    if min(values) > 0 and max(values) / min(values) > _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: cost_text(name, value)))


def _runs(analysis: Analysis, arm: Arm) -> dict[str, RunRecord]:
    cell = analysis.design.cells[arm.value, arm.setting]
    return {seed: run for seed, run in cell.items() if analysis.metric.name in run.metrics}
