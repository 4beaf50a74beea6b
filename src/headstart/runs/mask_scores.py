"""Scores of one confusion matrix over all pixels of a split, as means over its images: what pairing by images needs."""

import numpy as np

from headstart.runs.reader import StoredPredictions


def over_images(found: StoredPredictions, metric: str) -> np.ndarray | None:
    """``(N,)`` numbers whose mean is the score and whose spread is its error over images; None of another metric.

    A mean intersection over union is no mean over images: an image counts by what the score loses without it. These
    are the jackknife's pseudo-values, ``score + (N - 1) (mean of the scores without one image - score without this)``
    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 11).

    Args:
        found: predictions of masks.
        metric: ``miou``, ``acc`` or ``iou_<class>``.
    """
    assert found.hits is not None
    assert found.pixels is not None
    hits = found.hits.astype(np.float64)
    pixels = found.pixels.astype(np.float64)[:, None]
    seen = np.rint(found.targets * pixels) + np.rint(found.probabilities * pixels)
    counts = np.concatenate([hits, seen, pixels], axis=1)
    total = counts.sum(axis=0)
    whole, left = (_score(part, metric, found.classes) for part in (total, total - counts))
    if whole is None or left is None or not np.isfinite(whole):
        return None
    left = np.where(np.isfinite(left), left, whole)
    values: np.ndarray = whole + (len(left) - 1) * (left.mean() - left)
    return values


def _score(counts: np.ndarray, metric: str, classes: tuple[str, ...]) -> np.ndarray | None:
    """Of right pixels and pixels true and predicted of each class, and all pixels, the score ``(...)``."""
    hits, seen, pixels = np.split(counts, [len(classes), 2 * len(classes)], axis=-1)
    if metric == "acc":
        accuracy: np.ndarray = hits.sum(axis=-1) / np.maximum(pixels[..., 0], 1)
        return accuracy
    union = seen - hits
    ious = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
    if metric == "miou":
        there = np.isfinite(ious)
        mean: np.ndarray = np.where(there, ious, 0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
        return mean
    name = metric.removeprefix("iou_")
    return ious[..., classes.index(name)] if metric.startswith("iou_") and name in classes else None
