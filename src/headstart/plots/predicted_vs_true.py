"""For regression: what was predicted against what is true."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from headstart.plots.style import BLUE, MUTED, add_title, counted, save_figure, save_sentence


def plot_predicted_vs_true(
    targets: np.ndarray, predictions: np.ndarray, path: str | Path, *, name: str = "value", title: str = ""
) -> Path:
    """For regression: each sample as a point; the diagonal is a perfect prediction.

    Args:
        targets: true values, ``(N,)``.
        predictions: predicted values, ``(N,)``.
        path: the PNG to write.
        name: of the quantity, with its unit.
        title: above everything.
    """
    targets, predictions = np.asarray(targets, dtype=float).ravel(), np.asarray(predictions, dtype=float).ravel()
    finite = np.isfinite(targets) & np.isfinite(predictions)
    dropped = int((~finite).sum())
    targets, predictions = targets[finite], predictions[finite]
    if not targets.size:
        return save_sentence("No finite prediction to show.", path, title=title)

    def draw(figure: Figure) -> None:
        figure.set_size_inches(4.6, 4.6)
        axis = figure.subplots()
        low, high = min(targets.min(), predictions.min()), max(targets.max(), predictions.max())
        pad = 0.04 * (high - low) or 1.0
        limits = (low - pad, high + pad)
        axis.plot(limits, limits, color=MUTED, linewidth=1, linestyle="--", zorder=1)
        axis.scatter(
            targets, predictions, s=14, color=BLUE, alpha=float(np.clip(60 / len(targets), 0.12, 0.7)), linewidths=0
        )
        axis.set(xlim=limits, ylim=limits, xlabel=f"true {name}", ylabel=f"predicted {name}", aspect="equal")
        error = np.abs(targets - predictions).mean()
        spread = ((targets - targets.mean()) ** 2).sum()
        r2 = f", R² {1 - ((targets - predictions) ** 2).sum() / spread:.3f}" if spread else ""
        left_out = f", {dropped} not finite" if dropped else ""
        axis.set_title(f"{counted(len(targets), 'image')}, MAE {error:.3g}{r2}{left_out}")
        add_title(figure, title)

    return save_figure(draw, path)
