"""For segmentation: images beside what is true of their pixels and what was predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from headstart.data.records import IGNORED
from headstart.plots.style import add_title, save_figure, shorten
from headstart.system.colours import palette

_SIDE, _GAP, _MOST_NAMES = 1.6, 4, 12


@dataclass(frozen=True)
class Example:
    """One image with its masks, all ``(H, W)``.

    Attributes:
        image: bytes ``(H, W)`` or ``(H, W, C)``.
        true: class numbers, 255 where a pixel does not count.
        predicted: class numbers.
        right: share of the pixels that count.
    """

    image: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    right: float


def plot_masks(examples: Sequence[Example], classes: Sequence[str], path: str | Path, *, title: str = "") -> Path:
    """A column for each image: as it is, its mask and the predicted one.

    Args:
        examples: from the worst to the best.
        classes: their names.
        path: the PNG to write.
        title: above everything.
    """
    colours = palette()
    colours[IGNORED] = (255, 255, 255)
    columns = [
        np.concatenate(
            [
                part
                for shown in (_rgb(one.image), colours[one.true], colours[one.predicted])
                for part in (shown, np.full((_GAP, shown.shape[1], 3), 255, dtype=np.uint8))
            ]
        )
        for one in examples
    ]

    def draw(figure: Figure) -> None:
        figure.set_size_inches(max(4.6, _SIDE * len(columns) + 1.6), _SIDE * 3 + 0.9)
        axes = figure.subplots(1, len(columns), squeeze=False)[0]
        for axis, column, one in zip(axes, columns, examples, strict=True):
            axis.imshow(column, interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(f"{one.right:.0%} right", fontsize=9)
        handles = [
            Patch(facecolor=colours[number] / 255, edgecolor="black", linewidth=0.4, label=shorten(name, 18))
            for number, name in enumerate(classes[:_MOST_NAMES])
        ]
        figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)
        add_title(figure, f"{title}: image, mask, prediction; from the worst to the best" if title else "")

    return save_figure(draw, path)


def _rgb(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
