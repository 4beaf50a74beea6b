"""Plots along an axis: score by number of images, metric by epoch, and how far each stage drifted."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from headstart.plots.style import MUTED, Plot, canvas, capital, finish, legend_above, row_names
from headstart.runs.reader import RunRecord
from headstart.study.analysis import Analysis, Arm, Metric, Setting, shots_label
from headstart.study.compare import sort_key
from headstart.study.labels import axis_text, dash, look, scaled
from headstart.study.verdict import crossover_interval, main_setting

MOST_PANELS = 4
"""More plots of one kind than this are left out: a page is read, not searched."""


def shots(analysis: Analysis, folder: Path, prefix: str) -> list[Plot]:
    """Score against the number of training images, with the crossing, one plot per combination of the other axes."""
    design = analysis.design
    if design.shots is None:
        return []
    place = design.shots
    numeric = [arm for arm in analysis.arms if sort_key(arm.setting[place])[0] == 0]
    rests = sorted({(*arm.setting[:place], *arm.setting[place + 1 :]) for arm in numeric})
    plots = []
    for number, rest in enumerate(rests[:MOST_PANELS]):
        arms = [arm for arm in numeric if (*arm.setting[:place], *arm.setting[place + 1 :]) == rest]
        if len({arm.setting for arm in arms}) > 1:
            plots.append(_shots(analysis, arms, folder, f"{prefix}shots{f'-{number + 1}' if len(rests) > 1 else ''}"))
    return plots


def learning(analysis: Analysis, folder: Path, prefix: str) -> list[Plot]:
    """Validation metric by epoch: the mean over seeds, with the range of the seeds as a band."""
    short = analysis.metric.name.split("/", 1)[-1]
    settings = [main_setting(analysis), *(s for s in reversed(analysis.design.settings) if s != main_setting(analysis))]
    plots = []
    for number, setting in enumerate(settings[:MOST_PANELS]):
        plot = _learning(
            analysis, setting, f"val/{short}", folder, f"{prefix}learning{f'-{number + 1}' if number else ''}"
        )
        if plot:
            plots.append(plot)
    return plots


def drift(analysis: Analysis, folder: Path, prefix: str) -> Plot | None:
    """How far each stage of the backbone moved from its start."""
    setting = main_setting(analysis)
    moved: dict[str, dict[str, list[float]]] = {}
    order: dict[str, None] = {}
    for value in analysis.design.values:
        for run in analysis.design.cells.get((value, setting), {}).values():
            # The head starts from random weights: its change is large and says nothing about the backbone.
            for stage, amount in run.drift:
                if stage == "head":
                    continue
                order.setdefault(stage)
                moved.setdefault(value, {}).setdefault(stage, []).append(amount)
    if not moved or not any(amount for stages in moved.values() for seen in stages.values() for amount in seen):
        return None
    stages = list(order)
    rows = [
        {"value": value, "stage": stage, "drift_relative": float(np.mean(found[stage])), "runs": len(found[stage])}
        for value, found in moved.items()
        for stage in stages
        if stage in found
    ]
    with canvas(0.9 + 0.3 * len(stages), legend=True) as (figure, axes):
        for value, found in moved.items():
            colour, marker = look(analysis, value)
            places = [place for place, stage in enumerate(stages) if stage in found]
            means = [100 * float(np.mean(found[stages[place]])) for place in places]
            axes.plot(
                means, places, marker=marker, color=colour, linestyle=dash(analysis, value), markersize=6, label=value
            )
        row_names(axes, stages, ink=False)
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
        axes.set_xlabel("change of the weights, % of their size at the start")
        legend_above(figure, axes)
        words = []
        for value, found in moved.items():
            means_of = {stage: float(np.mean(seen)) for stage, seen in found.items()}
            most = max(means_of, key=means_of.__getitem__)
            words.append(f"{value} moves {most} most" if means_of[most] > 0 else f"{value} moves nothing")
        return finish(
            figure,
            folder,
            name=f"{prefix}drift",
            title="How far each stage moved from its start",
            caption="From the input (top) to the features (bottom). A frozen stage stays at exactly zero.",
            alt=f"Relative change of each stage's weights: {'; '.join(words)}.",
            rows=rows,
        )


def _shots(analysis: Analysis, arms: Sequence[Arm], folder: Path, name: str) -> Plot:
    design, metric = analysis.design, analysis.metric
    place = design.shots or 0
    label = shots_label(design)
    rows: list[dict[str, Any]] = []
    with canvas(3.3, legend=True) as (figure, axes):
        levels = sorted({float(arm.setting[place]) for arm in arms})
        for value in design.values:
            curve = [arm for arm in arms if arm.value == value]
            if not curve:
                continue
            colour, marker = look(analysis, value)
            x = [float(arm.setting[place]) for arm in curve]
            means = [arm.metrics[metric.name] for arm in curve]
            axes.plot(x, scaled(metric, [m.mean for m in means]), marker=marker, color=colour, markersize=6,
                      linestyle=dash(analysis, value), label=value)  # fmt: skip
            low = scaled(metric, [m.mean if m.low is None else m.low for m in means])
            high = scaled(metric, [m.mean if m.high is None else m.high for m in means])
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            rows += [
                {"value": value, "shots": at, metric.name: m.mean, "low": m.low, "high": m.high, "n": m.n}
                for at, m in zip(x, means, strict=True)
            ]
        words = []
        for item in analysis.overtakings:
            if item.crossing.point is not None and set(item.shots) <= set(levels):
                axes.axvline(item.crossing.point, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)))
                interval = crossover_interval(item.crossing, item.shots[0], item.shots[-1])
                words.append(f"{item.leader} overtakes {item.follower} at about {item.crossing.point:.3g} ({interval})")
        axes.set_xscale("log")
        axes.set_xticks(levels, [f"{level:g}" for level in levels])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label)
        axes.set_ylabel(axis_text(metric))
        legend_above(figure, axes)
        crossing = "; ".join(words) if words else "no curve crosses the reference's"
        return finish(
            figure,
            folder,
            name=name,
            title=f"{capital(metric.label)} by number of {label}",
            caption=f"Bands are 95 % intervals. {capital(crossing)}.",
            alt=f"{capital(metric.label)} from {levels[0]:g} to {levels[-1]:g} {label}: {crossing}.",
            rows=rows,
        )


def _learning(analysis: Analysis, setting: Setting, metric_name: str, folder: Path, name: str) -> Plot | None:
    curves: dict[str, dict[int, list[float]]] = {}
    for value in analysis.design.values:
        for run in analysis.design.cells.get((value, setting), {}).values():
            for epoch, reached in _epochs(run, metric_name):
                curves.setdefault(value, {}).setdefault(epoch, []).append(reached)
    if not curves or max(len(curve) for curve in curves.values()) < 2:
        return None
    metric = Metric(metric_name, analysis.metric.higher_is_better, analysis.metric.percent)
    rows: list[dict[str, Any]] = [
        {"value": value, "epoch": epoch, metric_name: float(np.mean(seen)), "lowest": min(seen), "highest": max(seen),
         "runs": len(seen)}
        for value, curve in curves.items()
        for epoch, seen in sorted(curve.items())
    ]  # fmt: skip
    with canvas(3.0, legend=True) as (figure, axes):
        for value, curve in curves.items():
            colour, _ = look(analysis, value)
            epochs = sorted(curve)
            axes.plot(epochs, scaled(metric, [np.mean(curve[e]) for e in epochs]), color=colour, label=value,
                      linestyle=dash(analysis, value))  # fmt: skip
            low, high = [min(curve[e]) for e in epochs], [max(curve[e]) for e in epochs]
            axes.fill_between(epochs, scaled(metric, low), scaled(metric, high), color=colour, alpha=0.13, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(axis_text(metric))
        legend_above(figure, axes)
        where = analysis.design.setting_text(setting)
        ends = [f"{value} ends at {metric.text(float(np.mean(curve[max(curve)])))}" for value, curve in curves.items()]
        return finish(
            figure,
            folder,
            name=name,
            title=f"{capital(metric.label)} while learning" + (f", {where}" if where else ""),
            caption="Mean over seeds; the band runs from the lowest to the highest seed.",
            alt=f"{capital(metric.label)} by epoch: {'; '.join(ends)}.",
            rows=rows,
        )


def _epochs(run: RunRecord, name: str) -> Iterator[tuple[int, float]]:
    for row in run.history:
        if "epoch" in row and name in row:
            yield int(row["epoch"]), row[name]
