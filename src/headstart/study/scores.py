"""The report's plots of scores, differences and costs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from headstart.plots.style import INK, MUTED, Plot, canvas, capital, legend_above, row_names
from headstart.study.analysis import Arm, Difference, cost_text
from headstart.study.labels import Sheet, axis_text, scaled
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


def scores(sheet: Sheet) -> Plot | None:
    """Every run as a dot, with mean and interval of each arm."""
    arms, metric = sheet.analysis.arms, sheet.analysis.metric
    if not 2 <= len(arms) <= MOST_ROWS:
        return None
    rows: list[dict[str, Any]] = []
    with canvas(0.85 + 0.46 * len(arms)) as (figure, axes):
        for place, arm in enumerate(arms):
            seen = _scores(sheet, arm)
            rows += [{**sheet.columns(arm), "seed": seed, metric.name: score} for seed, score in seen.items()]
            shift = np.linspace(-0.16, 0.16, len(seen)) if len(seen) > 1 else np.zeros(1)
            dots = scaled(metric, list(seen.values()))
            axes.scatter(dots, place + shift, s=16, color=sheet.look(arm.value)[0], alpha=0.45, linewidths=0)
            mean = arm.metrics[metric.name]
            sheet.interval(axes, arm.value, place, (mean.mean, mean.low, mean.high), filled=True)
        row_names(axes, [sheet.name(arm) for arm in arms])
        axes.set_xlabel(axis_text(metric))
        means = "; ".join(f"{sheet.name(arm)} {metric.text(arm.metrics[metric.name].mean)}" for arm in arms)
        return sheet.finish(
            figure,
            "scores",
            title=f"{capital(metric.label)} of every run",
            caption="Small dots are single runs, one per seed; the large mark is their mean with its 95 % interval.",
            alt=f"Dot plot of {metric.label}. Means: {means}.",
            rows=rows,
        )


def differences(sheet: Sheet, items: Sequence[Difference], reference: str, name: str) -> Plot | None:
    """Paired differences from a reference with their intervals, and a line at zero."""
    shown = [(item, item.paired) for item in items if item.paired is not None]
    if not shown or len(shown) > MOST_ROWS:
        return None
    metric = sheet.analysis.metric
    with canvas(0.95 + 0.46 * len(shown)) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=1.2)
        for place, (item, paired) in enumerate(shown):
            sure = item.verdict in ("better", "worse")
            sheet.interval(axes, item.value, place, (paired.mean, paired.low, paired.high), filled=sure)
        row_names(axes, [sheet.name(item) for item, _ in shown])
        unit = ", points" if metric.percent else ""
        axes.set_xlabel(f"difference from {reference} in {metric.label}{unit}")
        parts = "; ".join(f"{sheet.name(item)} {metric.gap(paired.mean)} ({item.verdict})" for item, paired in shown)
        return sheet.finish(
            figure,
            name,
            title=f"Difference from {reference}",
            caption=f"Mean over the pairs with its 95 % interval, as wide as {len(items)} comparison"
            f"{'s' if len(items) > 1 else ''} make it. Filled marks are significant, hollow ones are not.",
            alt=f"Paired differences from {reference} in {metric.label}{unit}: {parts}.",
            rows=[difference_row(sheet, item) for item, _ in shown],
        )


def cost(sheet: Sheet, name: str) -> Plot | None:
    """Score against one cost in the main setting, with the Pareto front."""
    metric, setting = sheet.analysis.metric, main_setting(sheet.analysis)
    arms = [arm for arm in arms_in(sheet.analysis, setting) if name in arm.costs and metric.name in arm.metrics]
    if len(arms) < 2:
        return None
    sign = 1 if metric.higher_is_better else -1
    costs, means = [arm.costs[name].mean for arm in arms], [arm.metrics[metric.name] for arm in arms]
    front = pareto_front(costs, [sign * mean.mean for mean in means])
    words, best = COST_WORDS[name], ", ".join(arms[place].value for place in front)
    rows = [
        {**sheet.columns(arm), name: costs[place], metric.name: means[place].mean, "on_pareto_front": place in front}
        for place, arm in enumerate(arms)
    ]
    with canvas(3.1, legend=True) as (figure, axes):
        line = scaled(metric, [means[place].mean for place in front])
        axes.plot([costs[p] for p in front], line, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        for arm, x, mean in zip(arms, costs, means, strict=True):
            colour, marker, _ = sheet.look(arm.value)
            if mean.low is not None and mean.high is not None:
                axes.plot([x, x], scaled(metric, [mean.low, mean.high]), color=colour, linewidth=1.6)
            axes.plot(x, scaled(metric, mean.mean), marker, color=colour, markersize=9, label=arm.value, ls="none")
        if min(costs) > 0 and max(costs) / min(costs) > _LOG_FROM:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: cost_text(name, value)))
        axes.margins(x=0.12, y=0.15)
        axes.set_ylabel(axis_text(metric))
        axes.set_xlabel(words)
        legend_above(figure, axes)
        where = sheet.analysis.design.setting_text(setting)
        numbers = "; ".join(
            f"{arm.value} {metric.text(mean.mean)} at {cost_text(name, x)}"
            for arm, x, mean in zip(arms, costs, means, strict=True)
        )
        return sheet.finish(
            figure,
            f"cost-{name.replace('_', '-')}",
            title=f"{capital(metric.label)} against {words}",
            caption=f"Up and to the left is better. The dashed line joins the choices that no other beats on both "
            f"counts: {best}." + (f" Shown for {where}." if where else ""),
            alt=f"{capital(metric.label)} against {words}: {numbers}. Pareto front: {best}.",
            rows=rows,
        )


def difference_row(sheet: Sheet, item: Difference) -> dict[str, Any]:
    """A difference as columns of a CSV file."""
    row: dict[str, Any] = {**sheet.columns(item), "verdict": item.verdict}
    if (paired := item.paired) is not None:
        row |= {"difference": paired.mean, "low": paired.low, "high": paired.high, "n": paired.n}
        row |= {"error": paired.error, "p_adjusted": paired.p}
    return row | {"comparisons": item.family}


def _scores(sheet: Sheet, arm: Arm) -> dict[str, float]:
    name = sheet.analysis.metric.name
    cell = sheet.analysis.design.cells[arm.value, arm.setting]
    return {seed: run.metrics[name] for seed, run in cell.items() if name in run.metrics}
