"""Along the number of training images: where one value of the contrast overtakes another."""

from dataclasses import dataclass

import numpy as np

from headstart.study.compare import SHOTS_AXES, Design, short_name, sort_key
from headstart.study.statistics import Crossover, crossover

Setting = tuple[str, ...]


@dataclass(frozen=True)
class Overtaking:
    """Where a value of the contrast overtakes the reference as the number of training images grows, or the reverse.

    Attributes:
        leader: with the most images.
        follower: the other.
        crossing: the number of images.
        shots: numbers tried.
        others: the setting of the other axes, in words.
        rest: its values.
    """

    leader: str
    follower: str
    crossing: Crossover
    shots: tuple[float, ...]
    others: str
    rest: Setting


def overtakings(design: Design, metric: str, *, higher: bool) -> list[Overtaking]:
    """Every value against the reference, along the number of images.

    Args:
        design: of the runs.
        metric: flat name of the one that decides.
        higher: it is better when higher.
    """
    if design.shots is None:
        return []
    others = sorted({without(setting, design.shots) for setting in design.settings})
    found = []
    for rest in others:
        for value in design.values[1:]:
            curves = _curves(design, metric, value, rest, 1.0 if higher else -1.0)
            if curves is None:
                continue
            shots, mine, reference = curves
            ahead = mine[-1].mean() > reference[-1].mean()
            leader, follower = (value, design.reference) if ahead else (design.reference, value)
            crossing = crossover(shots, mine, reference) if ahead else crossover(shots, reference, mine)
            found.append(Overtaking(leader, follower, crossing, tuple(shots), others_text(design, rest), rest))
    return found


def _curves(
    design: Design, metric: str, value: str, rest: Setting, sign: float
) -> tuple[list[float], np.ndarray, np.ndarray] | None:
    assert design.shots is not None
    levels, seeds = [], None
    for setting in design.settings:
        # `null` (all images) has no place on a scale of shots.
        if without(setting, design.shots) != rest or sort_key(setting[design.shots])[0] != 0:
            continue
        first, second = design.cells.get((value, setting), {}), design.cells.get((design.reference, setting), {})
        both = {seed for seed in first if seed in second and metric in first[seed].metrics}
        both &= {seed for seed in second if metric in second[seed].metrics}
        if both:
            levels.append(setting)
            seeds = both if seeds is None else seeds & both
    if len(levels) < 2 or not seeds:
        return None
    grids = [
        sign
        * np.array(
            [[design.cells[name, setting][seed].metrics[metric] for seed in sorted(seeds)] for setting in levels]
        )
        for name in (value, design.reference)
    ]
    return [float(setting[design.shots]) for setting in levels], grids[0], grids[1]


def without(setting: Setting, place: int) -> Setting:
    """The setting of the other axes."""
    return (*setting[:place], *setting[place + 1 :])


def others_text(design: Design, rest: Setting) -> str:
    """The setting of the axes beside the number of images, in words."""
    assert design.shots is not None
    axes = without(design.axes, design.shots)
    return ", ".join(f"{short_name(axis)} {value}" for axis, value in zip(axes, rest, strict=True))


def shots_label(design: Design) -> str:
    """What the axis of training images counts."""
    if design.shots is None:
        return ""
    return "training images per class" if design.axes[design.shots] == SHOTS_AXES[0] else "share of the training images"
