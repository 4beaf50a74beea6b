"""How trainings are compared: by accuracy on validation, less what seems to be luck with its images or with a seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headstart.ranking.journal import Tried
from headstart.runs.reader import read_run
from headstart.study.samples import right_answers

Right = tuple[np.ndarray, np.ndarray]


@dataclass
class Estimates:
    """What accuracy trainings seem to have, from what is known besides their own scores.

    Attributes:
        probed: accuracy of frozen features in cross-validation on the training images, by backbone.
        probed_images: how many those are.
        judged_images: how many there are to validate.
    """

    probed: Mapping[str, float] = field(default_factory=dict)
    probed_images: int = 0
    judged_images: int = 0
    _right: dict[str, Right | None] = field(default_factory=dict, init=False)

    def update(self, tried: Sequence[Tried]) -> None:
        """Give each its estimate, and the standard error that its seeds leave."""
        share, deviation = self.share(tried), seed_deviation(tried)
        for one in tried:
            one.seed_error = deviation / math.sqrt(1 + len(one.again)) if one.epochs else 0.0
            luck = self.luck(one.backbone, tried) * (share if one.epochs else 1.0)
            one.estimate = None if one.mean is None else one.mean - luck

    def luck(self, backbone: str, tried: Sequence[Tried]) -> float:
        """What a backbone's frozen features gain by the choice of the validation images.

        They were judged on the training images too, in cross-validation, so how good they are is better known than from
        either. Of a backbone without them it is what it is of the others on average.
        """
        images = self.probed_images + self.judged_images
        gains = {
            one.backbone: self.probed_images / images * (one.score - self.probed[one.backbone])
            for one in tried
            if not one.epochs and one.score is not None and one.backbone in self.probed
        }
        return gains[backbone] if backbone in gains else sum(gains.values()) / max(len(gains), 1)

    def share(self, tried: Sequence[Tried]) -> float:
        """How much of that luck is fine-tuning's too, because it gets the same images right.

        The frozen features of a backbone are a control variate of its fine-tunings, and this is its coefficient: the
        covariance of right answers, image by image, over the variance of the frozen features' (Lavenberg and Welch, "A
        Perspective on the Use of Control Variables", 1981), of all trainings together. 1 where answers are not known.
        """
        frozen = {one.backbone: found for one in tried if not one.epochs and (found := self._answers(one)) is not None}
        covariance = variance = 0.0
        for one in tried:
            found = self._answers(one) if one.epochs and one.backbone in frozen else None
            if found is not None and np.array_equal(found[0], frozen[one.backbone][0]):
                both = np.cov(found[1], frozen[one.backbone][1])
                covariance, variance = covariance + both[0, 1], variance + both[1, 1]
        return min(1.0, max(0.0, covariance / variance)) if variance else 1.0

    def _answers(self, one: Tried) -> Right | None:
        """Names of the validation images, and whether each was found; None where that is not known."""
        if one.path not in self._right:
            stored = read_run(Path(one.path)).predictions("val") if one.path else None
            found = None
            if stored is not None and len(stored.ids) > 1:
                found = stored.ids, right_answers(stored.probabilities, stored.targets)
            self._right[one.path] = found
        return self._right[one.path]


def seed_deviation(tried: Sequence[Tried]) -> float:
    """Standard deviation of a fine-tuning's score from seed to seed, of all that were repeated; 0 where none was."""
    squares, free = 0.0, 0
    for one in tried:
        if one.again and one.score is not None:
            squares += float(np.var([one.score, *one.again])) * (1 + len(one.again))
            free += len(one.again)
    return math.sqrt(squares / free) if free else 0.0


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The best by its estimate, less a standard error over seeds; of equal ones the cheapest. None: all failed."""
    best = max(tried, key=lambda one: one.order, default=None)
    return None if best is None or best.estimate is None else best
