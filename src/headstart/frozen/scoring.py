"""Scoring many jobs on one split at once."""

import math

import torch
from torch import Tensor

from headstart.tasks import Binary, Multiclass, Task

_TOP_K = 5


def score_many(task: Task, outputs: Tensor, targets: Tensor) -> list[dict[str, float]]:
    """What ``task.evaluate`` says of each job, up to rounding.

    Accuracy and loss, which may choose checkpoints, are the same to the last bit.

    Args:
        task: of all jobs.
        outputs: ``(jobs, N, outputs)``.
        targets: ``(N,)`` or ``(N, columns)``.
    """
    if not isinstance(task, Multiclass | Binary):
        return [task.evaluate(one, targets) for one in outputs]
    finite = torch.isfinite(outputs).flatten(1).all(dim=1)
    safe = torch.where(finite[:, None, None], outputs, 0.0)
    probabilities = torch.stack([task.probabilities(one) for one in safe])
    hits = probabilities.argmax(dim=2) == targets
    columns = {
        "acc": hits.sum(dim=1).float() / targets.numel(),
        "f1": _macro_f1(probabilities.argmax(dim=2), targets, len(task.classes)),
        "auroc": _auroc(probabilities, targets),
    }
    if "top5" in task.metric_names:
        best = probabilities.topk(_TOP_K, dim=2).indices
        columns["top5"] = (best == targets[:, None]).any(dim=2).sum(dim=1).float() / targets.numel()
    scores = []
    for place, one in enumerate(outputs):
        if not finite[place]:
            scores.append(dict.fromkeys(task.metric_names, math.nan))
            continue
        loss = float(task.loss(one.float(), targets))
        scores.append({"loss": loss, **{name: float(column[place]) for name, column in columns.items()}})
    return scores


def _macro_f1(predicted: Tensor, targets: Tensor, classes: int) -> Tensor:
    """``(jobs, N)`` class numbers to ``(jobs,)``: the mean over classes that are there or were predicted."""
    jobs = len(predicted)
    cells = (torch.arange(jobs)[:, None] * classes + targets) * classes + predicted
    table = torch.bincount(cells.flatten(), minlength=jobs * classes**2).view(jobs, classes, classes)
    hits, seen = table.diagonal(dim1=1, dim2=2).float(), (table.sum(dim=1) + table.sum(dim=2)).float()
    scores = torch.where(seen > 0, 2 * hits / seen.clamp(min=1), 0.0)
    return scores.sum(dim=1) / (seen > 0).sum(dim=1)


def _auroc(probabilities: Tensor, targets: Tensor) -> Tensor:
    """``(jobs, N, classes)`` to ``(jobs,)``: mean area under the ROC curves of each class against the rest.

    The area is the probability that an image of the class ranks before one of the rest, ties counting half (Hanley and
    McNeil, Radiology 1982).
    """
    classes = probabilities.shape[2]
    counts = torch.bincount(targets, minlength=classes)
    present = [number for number, count in enumerate(counts.tolist()) if 0 < count < len(targets)]
    if not present:
        return torch.full((len(probabilities),), math.nan)
    scored = present[-1:] if classes == 2 else present
    ranks = _mean_ranks(probabilities[:, :, scored].transpose(1, 2).contiguous())
    positive = torch.stack([targets == number for number in scored]).double()
    count = positive.sum(dim=1)
    areas = ((ranks * positive).sum(dim=2) - count * (count + 1) / 2) / (count * (len(targets) - count))
    return areas.mean(dim=1)


def _mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 along the last dimension; equal values share the mean of theirs."""
    ordered, order = values.sort(dim=-1)
    length = values.shape[-1]
    places = torch.arange(length).expand_as(ordered)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = torch.where(new, places, 0).cummax(dim=-1).values
    ends = torch.ones_like(new)
    ends[..., :-1] = new[..., 1:]
    last = torch.where(ends, places, length).flip(-1).cummin(dim=-1).values.flip(-1)
    return torch.empty_like(ordered, dtype=torch.float64).scatter_(-1, order, (first + last).double() / 2 + 1)
