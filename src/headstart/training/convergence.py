"""Whether a training had come to rest when it ended."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Share of the epochs over which the fall of the training loss is taken.
_WINDOW = 0.25


def fit_record(rows: Sequence[Mapping[str, Any]], best_epoch: int | None) -> dict[str, Any]:
    """What says whether more epochs would have helped, for ``details.fit`` of ``result.json``.

    Args:
        rows: of ``metrics.csv``, one an epoch.
        best_epoch: the epoch that validation chose, counted from 0.

    Returns: ``best_epoch`` and ``last_epoch`` (counted from 0), ``train_loss_first`` and ``train_loss_last`` (means of
        those epochs), and ``train_loss_fall``: by which share of itself the mean training loss fell from the last
        quarter of the epochs but one to the last one, or None in a single epoch. Empty where nothing was noted.
    """
    minimised = [row.get("train/objective", row.get("train/loss")) for row in rows]
    losses = np.array([value for value in minimised if value is not None], dtype=float)
    if not len(losses):
        return {}
    window, fall = max(1, int(_WINDOW * len(losses))), None
    if len(losses) > 1:
        before, after = losses[-2 * window : -window].mean(), losses[-window:].mean()
        fall = float((before - after) / max(before, np.finfo(float).tiny))
    return {
        "best_epoch": best_epoch,
        "last_epoch": int(rows[-1]["epoch"]),
        "train_loss_first": float(losses[0]),
        "train_loss_last": float(losses[-1]),
        "train_loss_fall": fall,
    }
