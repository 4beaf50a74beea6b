"""Plots along an axis: score by number of images, metric by epoch, and how far each stage drifted."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from headstart.plots.style import MUTED, Plot, canvas, capital, legend_above, row_names
from headstart.study.analysis import Arm, Metric, Setting
from headstart.study.compare import sort_key
from headstart.study.crossing import others_text, shots_label, without
from headstart.study.labels import Sheet, axis_text, scaled
from headstart.study.verdict import crossover_interval, main_setting

MOST_PANELS = 4
"""More plots of one kind than this are left out: a page is read, not searched."""


def shots(sheet: Sheet) -> list[Plot]:
    """Score against the number of training images, with the crossing, one plot per combination of the other axes."""
    place = sheet.analysis.design.shots
    if place is None:
        return []
    groups: dict[Setting, list[Arm]] = defaultdict(list)
    for arm in sheet.analysis.arms:
        if sort_key(arm.setting[place])[0] == 0:
            groups[without(arm.setting, place)].append(arm)
    return [
        _shots(sheet, groups[rest], place, f"shots-{number}" if len(groups) > 1 else "shots")
        for number, rest in enumerate(sorted(groups)[:MOST_PANELS], start=1)
        if len({arm.setting for arm in groups[rest]}) > 1
    ]


def learning(sheet: Sheet) -> list[Plot]:
    """Validation metric by epoch: the mean over seeds, with the range of the seeds as a band."""
    main = main_setting(sheet.analysis)
    settings = [main, *(setting for setting in reversed(sheet.analysis.design.settings) if setting != main)]
    drawn = [_learning(sheet, setting, number) for number, setting in enumerate(settings[:MOST_PANELS])]
    return [plot for plot in drawn if plot is not None]


def drift(sheet: Sheet) -> Plot | None:
    """How far each stage of the backbone moved from its start."""
    setting = main_setting(sheet.analysis)
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    order: dict[str, None] = {}
    for value in sheet.analysis.design.values:
        for run in sheet.analysis.design.cells.get((value, setting), {}).values():
            for stage, amount in run.drift:
                # The head starts from random weights: its change is large and says nothing about the backbone.
                if stage != "head":
                    order.setdefault(stage)
                    seen[value][stage].append(amount)
    moved = {value: {stage: float(np.mean(found)) for stage, found in stages.items()} for value, stages in seen.items()}
    if not any(amount for stages in moved.values() for amount in stages.values()):
        return None
    stages = list(order)
    rows = [
        {"value": value, "stage": stage, "drift_relative": found[stage], "runs": len(seen[value][stage])}
        for value, found in moved.items()
        for stage in stages
        if stage in found
    ]
    with canvas(0.9 + 0.3 * len(stages), legend=True) as (figure, axes):
        words = []
        for value, found in moved.items():
            places = [place for place, stage in enumerate(stages) if stage in found]
            sheet.line(axes, value, [100 * found[stages[place]] for place in places], places)
            most = max(found, key=found.__getitem__)
            words.append(f"{value} moves {most} most" if found[most] > 0 else f"{value} moves nothing")
        row_names(axes, stages, ink=False)
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
        axes.set_xlabel("change of the weights, % of their size at the start")
        legend_above(figure, axes)
        return sheet.finish(
            figure,
            "drift",
            title="How far each stage moved from its start",
            caption="From the input (top) to the features (bottom). A frozen stage stays at exactly zero.",
            alt=f"Relative change of each stage's weights: {'; '.join(words)}.",
            rows=rows,
        )


def _shots(sheet: Sheet, arms: Sequence[Arm], place: int, name: str) -> Plot:
    metric, design = sheet.analysis.metric, sheet.analysis.design
    label, rest = shots_label(design), without(arms[0].setting, place)
    others = others_text(design, rest)
    rows: list[dict[str, Any]] = []
    with canvas(3.3, legend=True) as (figure, axes):
        levels = sorted({float(arm.setting[place]) for arm in arms})
        for value in design.values:
            curve = [(float(arm.setting[place]), arm.metrics[metric.name]) for arm in arms if arm.value == value]
            if not curve:
                continue
            x = [at for at, _ in curve]
            sheet.line(axes, value, x, scaled(metric, [mean.mean for _, mean in curve]))
            low = scaled(metric, [mean.mean if mean.low is None else mean.low for _, mean in curve])
            high = scaled(metric, [mean.mean if mean.high is None else mean.high for _, mean in curve])
            sheet.band(axes, value, x, low, high)
            rows += [
                {
                    "value": value,
                    **dict(zip(without(design.axes, place), rest, strict=True)),
                    "shots": at,
                    metric.name: mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                    "n": mean.n,
                }
                for at, mean in curve
            ]
        words = []
        for item in sheet.analysis.overtakings:
            if item.crossing.point is not None and item.rest == rest:
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
        return sheet.finish(
            figure,
            name,
            title=f"{capital(metric.label)} by number of {label}{others and f', {others}'}",
            caption=f"Bands are 95 % intervals. {capital(crossing)}.",
            alt=f"{capital(metric.label)} from {levels[0]:g} to {levels[-1]:g} {label}: {crossing}.",
            rows=rows,
        )


def _learning(sheet: Sheet, setting: Setting, number: int) -> Plot | None:
    deciding, design = sheet.analysis.metric, sheet.analysis.design
    metric = Metric(f"val/{deciding.name.split('/', 1)[-1]}", deciding.higher_is_better, deciding.percent)
    curves: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for value in design.values:
        for run in design.cells.get((value, setting), {}).values():
            for row in run.history:
                if "epoch" in row and metric.name in row:
                    curves[value][int(row["epoch"])].append(row[metric.name])
    if max(map(len, curves.values()), default=0) < 2:
        return None
    rows: list[dict[str, Any]] = [
        {"value": value, "epoch": epoch, metric.name: float(np.mean(seen)), "lowest": min(seen), "highest": max(seen),
         "runs": len(seen)}
        for value, curve in curves.items()
        for epoch, seen in sorted(curve.items())
    ]  # fmt: skip
    with canvas(3.0, legend=True) as (figure, axes):
        ends = []
        for value in curves:
            mine = [row for row in rows if row["value"] == value]
            epochs = [row["epoch"] for row in mine]
            mean, low, high = (scaled(metric, [row[key] for row in mine]) for key in (metric.name, "lowest", "highest"))
            sheet.line(axes, value, epochs, mean, marked=False)
            sheet.band(axes, value, epochs, low, high)
            ends.append(f"{value} ends at {metric.text(mine[-1][metric.name])}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(axis_text(metric))
        legend_above(figure, axes)
        where = design.setting_text(setting)
        return sheet.finish(
            figure,
            f"learning-{number}" if number else "learning",
            title=f"{capital(metric.label)} while learning" + (f", {where}" if where else ""),
            caption="Mean over seeds; the band runs from the lowest to the highest seed.",
            alt=f"{capital(metric.label)} by epoch: {'; '.join(ends)}.",
            rows=rows,
        )
