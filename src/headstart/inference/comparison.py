"""Two models on the same new images: how their metrics differ, with intervals over those images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from headstart.errors import DataError
from headstart.inference.resampling import measured, percentiles, resampled
from headstart.study.paired import paired_difference
from headstart.study.samples import right_answers
from headstart.tasks import Task

if TYPE_CHECKING:
    from headstart.inference.evaluate import Evaluation

COMPARED = ("metric", "this run", "the other", "difference", "95 % interval over images")
_ROUNDED = 1e-6


@dataclass(frozen=True)
class Gap:
    """One metric of two models.

    Attributes:
        first: of the model that is evaluated.
        second: of the other.
        low: end of the 95 % interval of ``first - second`` over images; NaN where it is not defined.
        high: its other end.
    """

    first: float
    second: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """With one other run.

    Attributes:
        run: the name of its directory.
        metrics: by name.
    """

    run: str
    metrics: Mapping[str, Gap]

    def rows(self) -> list[tuple[str, ...]]:
        """As text, in the columns of :data:`COMPARED`."""
        return [
            (
                name,
                f"{one.first:.4f}",
                f"{one.second:.4f}",
                f"{one.first - one.second:+.4f}",
                f"{one.low:+.4f} to {one.high:+.4f}" if math.isfinite(one.low) else "-",
            )
            for name, one in self.metrics.items()
        ]


def compare(run: str, first: tuple[Task, "Evaluation"], second: tuple[Task, "Evaluation"]) -> Comparison:
    """One model minus another, paired image by image.

    Accuracy is compared as in a report (:func:`headstart.study.paired.paired_difference`), which stays honest where the
    two disagree on few images; other metrics by the same draws of a bootstrap over images for both.

    Args:
        run: name of the other run.
        first: the model's task and what it made of the images.
        second: the other's.

    Raises:
        DataError: the two have not seen the same images.
    """
    (_, here), (_, there) = first, second
    if here.ids != there.ids:
        raise DataError(f"{run} takes other images of {here.data} than the run; they cannot be compared one by one")
    values, drawn = [], []
    for task, found in (first, second):
        targets = torch.from_numpy(found.targets)
        values.append(measured(task, found.outputs, targets))
        drawn.append(resampled(task, found.outputs, targets))
    metrics = {}
    for name in values[0]:
        low, high = percentiles(drawn[0][name] - drawn[1][name])
        metrics[name] = Gap(values[0][name], values[1][name], low, high)
    right = [
        right_answers(found.probabilities, found.targets) if task.one_class else np.zeros(0)
        for task, found in (first, second)
    ]
    if "acc" in metrics and all(
        abs(one.mean() - value["acc"]) < _ROUNDED for one, value in zip(right, values, strict=True)
    ):
        exact = paired_difference(
            [right[0].mean()], [right[1].mean()], images=[right[0] - right[1]], step=1, exact=True
        )
        if exact.low is not None and exact.high is not None:
            metrics["acc"] = Gap(values[0]["acc"], values[1]["acc"], exact.low, exact.high)
    return Comparison(run, metrics)
