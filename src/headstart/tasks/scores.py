"""Metrics of classes and labels from counts and ranks, for several models on one split at once."""

import torch
from torch import Tensor

# Scores that are sorted at a time: their ranks take some ten times the memory.
_AT_A_TIME = 1 << 22


def confusion_counts(predicted: Tensor, targets: Tensor, classes: int) -> Tensor:
    """``(models, N)`` and ``(N,)`` class numbers to ``(models, classes, classes)``: true class by row, in float64."""
    models = len(predicted)
    cells = (torch.arange(models, device=targets.device)[:, None] * classes + targets) * classes + predicted
    return torch.bincount(cells.flatten(), minlength=models * classes**2).view(models, classes, classes).double()


def macro_f1(counts: Tensor) -> Tensor:
    """Mean F1 over the classes that are there or were predicted: ``(models, C, C)`` to ``(models,)``."""
    hits, seen = counts.diagonal(dim1=1, dim2=2), counts.sum(dim=1) + counts.sum(dim=2)
    return (2 * hits / seen).nanmean(dim=1)


def balanced_accuracy(counts: Tensor) -> Tensor:
    """Mean recall over the classes that are there: ``(models, C, C)`` to ``(models,)``."""
    return (counts.diagonal(dim1=1, dim2=2) / counts.sum(dim=2)).nanmean(dim=1)


def cohen_kappa(counts: Tensor) -> Tensor:
    """Agreement beyond chance (Cohen 1960), NaN where chance alone agrees: ``(models, C, C)`` to ``(models,)``."""
    shares = counts / counts.sum(dim=(1, 2), keepdim=True)
    agreed = shares.diagonal(dim1=1, dim2=2).sum(dim=1)
    by_chance = (shares.sum(dim=1) * shares.sum(dim=2)).sum(dim=1)
    return (agreed - by_chance) / (1 - by_chance)


def areas(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Areas under the curves of columns, equal scores counting alike: NaN where they are not defined.

    Under the ROC curve: the probability that a positive ranks before one of the rest, ties counting half (Hanley and
    McNeil, Radiology 1982). Average precision: the mean over positives of the precision among all that score no less.

    Args:
        scores: ``(models, N, K)``.
        positive: ``(N, K)``, whether an image is of the column.

    Returns: two ``(models, K)`` in float64.
    """
    models, length, columns = scores.shape
    step = max(1, _AT_A_TIME // (models * length))
    parts = [
        _areas(scores[:, :, start : start + step], positive[:, start : start + step])
        for start in range(0, columns, step)
    ]
    under_roc, precision = zip(*parts, strict=True)
    return torch.cat(under_roc, dim=1), torch.cat(precision, dim=1)


def of_each_class(hits: Tensor, predicted: Tensor, present: Tensor) -> dict[str, list[float]]:
    """Precision, recall, F1 and number of images of each class; NaN where none was predicted or is there.

    Args:
        hits: ``(C,)``, images of the class that were predicted to be.
        predicted: ``(C,)``, images that were.
        present: ``(C,)``, images of the class.
    """
    hits = hits.double()
    return {
        "precision": (hits / predicted).tolist(),
        "recall": (hits / present).tolist(),
        "f1": (2 * hits / (predicted + present)).tolist(),
        "support": [int(count) for count in present],
    }


def _areas(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    length = scores.shape[1]
    ordered, order = scores.transpose(1, 2).contiguous().sort(dim=-1)
    hits = positive.T.expand_as(order).gather(-1, order).double()
    count = positive.sum(dim=0).double()
    first, last = _ends_of_ties(ordered)
    ranks = (first + last).double() / 2 + 1
    under_roc = ((ranks * hits).sum(dim=-1) - count * (count + 1) / 2) / (count * (length - count))
    no_less = count[:, None] - (hits.cumsum(dim=-1) - hits).gather(-1, first)
    return under_roc, (no_less / (length - first) * hits).sum(dim=-1) / count


def _ends_of_ties(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the first and the last value that are equal to each, along the last dimension."""
    length = ordered.shape[-1]
    places = torch.arange(length, device=ordered.device).expand_as(ordered)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = torch.where(new, places, 0).cummax(dim=-1).values
    ends = torch.ones_like(new)
    ends[..., :-1] = new[..., 1:]
    last = torch.where(ends, places, length).flip(-1).cummin(dim=-1).values.flip(-1)
    return first, last
