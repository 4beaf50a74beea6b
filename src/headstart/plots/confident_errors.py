"""The images that a model got wrong with the highest confidence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headstart.plots.style import INK, RED, add_title, capital, counted, save_figure, save_sentence, shorten

# Of a grid of images, in inches: an image's longer side, the gap beside it, its caption with the gap below.
_SIDE, _GAP, _CAPTION = 2.1, 0.1, 0.52


def plot_confident_errors(
    images: Sequence[np.ndarray],
    true: Sequence[Any],
    predicted: Sequence[Any],
    probability: Sequence[float],
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    limit: int = 16,
    title: str = "",
) -> Path:
    """A grid of the images that the model got wrong with the highest confidence.

    Args:
        images: uint8 arrays ``(H, W, C)`` or ``(H, W)``, aligned with the next three; may be a lazy sequence, only
            the chosen ones are read. Correctly classified images among them are left out.
        true: class names, or indices into ``classes``.
        predicted: likewise.
        probability: of the predicted class, 0 to 1.
        path: the PNG to write.
        classes: names in index order.
        limit: at most this many images.
        title: above everything.
    """
    wrong = sum(a != b for a, b in zip(true, predicted, strict=True))
    chosen = most_confident_errors(true, predicted, probability, limit=limit)
    if not chosen:
        text = f"None of {len(true):,} images was classified wrongly." if len(true) else "No image has been scored."
        return save_sentence(text, path, title=title)

    def name(value: Any) -> str:
        return shorten(str(classes[int(value)] if classes is not None else value), 20)

    def draw(figure: Figure) -> None:
        columns = min(4, len(chosen))
        pictures = [np.asarray(images[index]) for index in chosen]
        sizes = [[_SIDE * length / max(picture.shape[:2]) for length in picture.shape[:2]] for picture in pictures]
        rows = [max(height for height, _ in sizes[start : start + columns]) for start in range(0, len(chosen), columns)]
        width, height = (_SIDE + _GAP) * columns - _GAP, sum(rows) + _CAPTION * len(rows)
        figure.set_size_inches(max(width, 4.4) + 0.3, height + 0.5)
        axis = figure.subplots()  # One for all, in inches from the top left: each axis of its own costs 40 ms.
        axis.set_axis_off()
        for place, index in enumerate(chosen):
            down, right = divmod(place, columns)
            middle = (_SIDE + _GAP) * right + _SIDE / 2
            bottom = sum(rows[: down + 1]) + _CAPTION * down
            _draw_above(axis, pictures[place], middle, bottom, *sizes[place])
            caption = f"{name(predicted[index])}  {probability[index]:.0%}"
            axis.text(middle, bottom + 0.05, caption, ha="center", va="top", fontsize=9, color=RED, weight="bold")
            axis.text(middle, bottom + 0.23, f"is {name(true[index])}", ha="center", va="top", fontsize=9, color=INK)
        axis.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        shown = (
            f"the {len(chosen)} most confident of {wrong:,} errors" if wrong > len(chosen) else counted(wrong, "error")
        )
        add_title(figure, f"{title}: {shown}" if title else capital(shown))

    return save_figure(draw, path)


def most_confident_errors(
    true: Sequence[Any], predicted: Sequence[Any], probability: Sequence[float], *, limit: int = 16
) -> list[int]:
    """Positions of the wrong predictions with the highest probability, highest first; ties in order of position."""
    wrong = [index for index, (a, b) in enumerate(zip(true, predicted, strict=True)) if a != b]
    return sorted(wrong, key=lambda index: -float(probability[index]))[:limit]


def _draw_above(axis: Axes, image: np.ndarray, middle: float, bottom: float, height: float, width: float) -> None:
    """An image that stands on a line, so that the captions below a row of images line up."""
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    gray: Any = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}
    extent = (middle - width / 2, middle + width / 2, bottom, bottom - height)
    axis.imshow(image, extent=extent, interpolation="nearest", **gray)
