"""Does the verdict keep its promises? Studies whose truth is known, judged by the code that writes reports.

    python experiments/verdict/simulate.py            # writes simulated.csv beside this file; about three minutes

A pool of images is drawn, then splits of it, training sets, seeds; each moves whether an image is classified rightly.
The truth is the difference between two arms over all images (and, where splits vary, over all training sets), in closed
form. A row is a kind of study: how often any arm was wrongly called different (nulls, or in the wrong direction), how
often 95 % intervals of single comparisons hold the truth, how often all intervals of a study do at once, how often true
differences are found, and how often the best arm is among those that "cannot be told from the best".
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from headstart.study.paired import Paired, candidates, corrected, paired_difference

STUDIES, STUDIES_OF_MANY = 3000, 600
"""How many are played of each kind; of seventeen arms fewer, as each is as much work as sixteen."""

IMAGE, IMAGE_BY_ARM, SEED, SEED_BY_IMAGE = 1.0, 0.5, 0.06, 0.5
"""Standard deviations on the probit scale."""


@dataclass(frozen=True)
class Kind:
    """One kind of study: ``splits`` of 1 is seeds on one split; ``shots`` draws few images from the pool.

    ``training`` is what one training image does to an arm, on the probit scale: at 0.75 forty drawn images move an
    accuracy by about three points, and 640 of 800 by less than one. The images of a pool then matter 1.2 times as much
    for being trained on as for being tested on, twice at 0.96, and 4.9 times at 1.5.
    """

    name: str
    arms: int
    seeds: int = 8
    splits: int = 1
    shots: int = 0
    fixed_test: bool = False
    better: int = 0
    gap: float = 0.25
    training: float = 0.75
    pool: int = 800

    @property
    def tested(self) -> int:
        """Test images: a fifth of the pool."""
        return self.pool // 5

    @property
    def trained(self) -> int:
        """Training images of one split."""
        return self.shots or self.pool - self.tested


KINDS = [
    *(Kind("seeds on one split", arms, seeds=seeds) for arms in (2, 3, 5, 17) for seeds in (5, 8, 20)),
    *(Kind("seeds on one split", arms, seeds=8, better=arms // 2) for arms in (2, 5, 17)),
    *(Kind("few images, new draws and test images", arms, seeds=1, splits=8, shots=40) for arms in (2, 5, 17)),
    *(
        Kind("few images, new draws, one test set", arms, seeds=2, splits=8, shots=40, fixed_test=True)
        for arms in (2, 17)
    ),
    Kind("few images, new draws and test images", 5, seeds=1, splits=8, shots=40, better=2),
    *(
        Kind("whole splits", arms, seeds=seeds, splits=splits)
        for arms in (2, 17)
        for seeds, splits in ((1, 5), (2, 10))
    ),
    Kind("whole splits", 2, seeds=1, splits=20),
    Kind("whole splits", 2, seeds=1, splits=10, better=1),
    Kind("whole splits", 5, seeds=1, splits=10, better=2),
    *(Kind("whole splits of a small pool", arms, seeds=1, splits=8, pool=200) for arms in (2, 5)),
    Kind("whole splits, training images matter twice as much as test images", 2, seeds=2, splits=10, training=0.96),
    Kind("whole splits, training images matter five times as much", 2, seeds=2, splits=10, training=1.5),
]


def study(kind: Kind, random: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Scores ``(arms, repetitions)``, whether each image was right ``(arms, N)`` a repetition, and the true scores."""
    ability = np.full(kind.arms, 0.8)
    ability[kind.arms - kind.better :] += kind.gap
    fresh = kind.pool + kind.tested if kind.fixed_test else kind.pool
    hardness = IMAGE * random.normal(size=fresh) + IMAGE_BY_ARM * random.normal(size=(kind.arms, fresh))
    influence = kind.training * random.normal(size=(kind.arms, kind.pool))
    rights = []
    for _ in range(kind.splits):
        order = random.permutation(kind.pool)
        test = np.arange(kind.pool, fresh) if kind.fixed_test else order[: kind.tested]
        # On one split, what its training images do is part of the truth: it is already in the ability.
        taught = influence[:, order[kind.tested :][: kind.trained]].mean(axis=1) * (kind.splits > 1)
        seeds = SEED * random.normal(size=(kind.seeds, kind.arms, 1))
        luck = SEED_BY_IMAGE * random.normal(size=(kind.seeds, kind.arms, len(test)))
        right = (ability + taught)[:, None] + hardness[:, test] + seeds + luck > 0
        known = np.full((kind.seeds, kind.arms, fresh), np.nan)
        known[:, :, test] = right
        rights.append(known.mean(axis=0) if kind.splits > 1 else known)
    grid = np.stack(rights) if kind.splits > 1 else rights[0]
    varied = IMAGE**2 + IMAGE_BY_ARM**2 + SEED**2 + SEED_BY_IMAGE**2
    varied += kind.training**2 / kind.trained if kind.splits > 1 else 0.0
    return np.nanmean(grid, axis=2).T, list(np.moveaxis(grid, 1, 0)), ndtr(ability / math.sqrt(varied))


def compare(kind: Kind, scores: np.ndarray, rights: list[np.ndarray], first: int, second: int) -> Paired:
    """One comparison, told what a report knows of its runs."""
    images = rights[first] - rights[second]
    if kind.splits == 1 or kind.fixed_test:
        drawn = kind.trained / kind.pool if kind.shots else 0.0
        return paired_difference(scores[first], scores[second], images=images, step=1.0, drawn=drawn)
    if kind.shots:
        shared, drawn = kind.tested / kind.pool, kind.trained / kind.pool
        return paired_difference(scores[first], scores[second], images=images, step=1.0, shared=shared, drawn=drawn)
    return paired_difference(scores[first], scores[second], images=images, step=1.0, overlap=kind.tested / kind.pool)


def judge(kind: Kind, studies: int) -> dict[str, object]:
    """Play ``studies`` studies of a kind."""
    random = np.random.default_rng([studies, kind.arms, kind.seeds, kind.splits, kind.shots, kind.better])
    wrong = covered = together = found = kept = 0
    for _ in range(studies):
        scores, rights, truth = study(kind, random)
        items = [compare(kind, scores, rights, arm, 0) for arm in range(1, kind.arms)]
        gaps = truth[1:] - truth[0]
        singles = [item.low <= gap <= item.high for item, gap in zip(items, gaps, strict=True)]
        judged = corrected(items)
        held = [item.low <= gap <= item.high for item, gap in zip(judged, gaps, strict=True)]
        wrong += any(item.significant and item.mean * gap <= 0 for item, gap in zip(judged, gaps, strict=True))
        covered += sum(singles)
        together += all(held)
        found += sum(item.significant and item.mean * gap > 0 for item, gap in zip(judged, gaps, strict=True))
        best, arms = int(np.argmax(truth)), range(kind.arms)
        pairs = [compare(kind, scores, rights, arm, best).among(kind.arms - 1) if arm != best else None for arm in arms]
        kept += best in candidates([[pairs[arm] if other == best else None for other in arms] for arm in arms])
    comparisons = studies * (kind.arms - 1)
    return {
        "study": kind.name, "arms": kind.arms, "splits": kind.splits, "seeds": kind.seeds,
        "truly_better": kind.better, "studies": studies, "family_wise_error": wrong / studies,
        "coverage": covered / comparisons, "coverage_together": together / studies,
        "called_different": found / comparisons, "best_kept": kept / studies,
    }  # fmt: skip


def main() -> None:
    """Write the table."""
    path = Path(__file__).with_name("simulated.csv")
    rows = [judge(kind, STUDIES if kind.arms < 10 else STUDIES_OF_MANY) for kind in KINDS]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )


if __name__ == "__main__":
    main()
