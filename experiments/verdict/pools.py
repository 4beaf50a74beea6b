"""Ten splits of each of many pools: do intervals from one pool hold what all pools say?

    python experiments/verdict/pools.py PATH      # PATH/<class>/*, hundreds each; writes pools.csv beside this

Frozen features of the images, ten classes a task, each task dealt out into pools of 400 images that share none. In each
pool six learners are compared as a report does it: ten splits, four fifths to train on and one to test. What is true of
a task is the mean of its other pools. A row is a pair of learners; ``training_to_test`` is what pools differ by beyond
what splits and test images explain, so what their images do as training images, in units of what they do as test
images. Columns that end in ``_nb`` are by Nadeau and Bengio's factor.
"""

import argparse
import csv
import itertools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hymenoptera import features
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from headstart.study.paired import Paired, paired_difference

CLASSES, POOL, SPLITS, TESTED = 10, 400, 10, 80


def learners(seed: int) -> dict[str, object]:
    """Stable ones and unstable ones, with and without randomness of their own."""
    return {
        "logreg": LogisticRegression(C=0.1, max_iter=200),
        "ridge": RidgeClassifier(alpha=100.0),
        "knn": KNeighborsClassifier(5),
        "sgd": SGDClassifier(alpha=1e-3, max_iter=8, tol=None, random_state=seed),
        "tree": DecisionTreeClassifier(max_depth=10, random_state=seed),
        "mlp": MLPClassifier((64,), max_iter=25, learning_rate_init=3e-3, random_state=seed),
    }


def pools(inputs: np.ndarray, targets: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The task of each pool, and which images learners got right: ``(learners, splits, images)``, NaN if untested."""
    random = np.random.default_rng(0)
    for task in range(len(np.unique(targets)) // CLASSES):
        places = random.permutation(np.flatnonzero(targets // CLASSES == task))
        for start in range(0, len(places) - POOL + 1, POOL):
            pool = places[start : start + POOL]
            right = np.full((len(learners(0)), SPLITS, POOL), np.nan)
            for split in range(SPLITS):
                order = random.permutation(POOL)
                test, train = order[:TESTED], order[TESTED:]
                centre, scale = inputs[pool[train]].mean(axis=0), inputs[pool[train]].std(axis=0) + 1e-6
                near, far = ((inputs[pool[part]] - centre) / scale for part in (train, test))
                for row, learner in enumerate(learners(int(random.integers(1 << 30))).values()):
                    said = learner.fit(near, targets[pool[train]]).predict(far)  # type: ignore[attr-defined]
                    right[row, split, test] = said == targets[pool[test]]
            yield task, right


def judge(studies: list[tuple[int, np.ndarray]], first: int, second: int) -> dict[str, float]:
    """How one pair of learners fares over all pools."""
    told: dict[str, list[float]] = {
        key: [] for key in ("held", "width", "found", "wrong", "held_nb", "width_nb", "found_nb")
    }
    true, parts, lasting = [], [], []
    for task in {task for task, _ in studies}:
        grids = [right[first] - right[second] for found, right in studies if found == task]
        means = np.array([np.nanmean(grid, axis=1).mean() for grid in grids])
        true.append(float(means.var(ddof=1)))
        for place, grid in enumerate(grids):
            scores, none = np.nanmean(grid, axis=1), np.zeros(SPLITS)
            counted = paired_difference(scores, none, images=grid, step=1.0, overlap=TESTED / POOL)
            factor = paired_difference(scores, none, overlap=TESTED / POOL)
            truth, count = float(np.delete(means, place).mean()), len(means) - 1
            for name, item in (("", counted), ("_nb", factor)):
                half = reach(item)
                told[f"held{name}"].append(abs(item.mean - truth) <= half * math.sqrt(1 + 1 / count))
                told[f"width{name}"].append(2 * half)
                told[f"found{name}"].append(item.significant and item.mean * truth > 0)
            told["wrong"].append(counted.significant and counted.mean * truth <= 0)
            parts.append(float(scores.var(ddof=1)) / SPLITS)
            lasting.append(paired_difference(scores, none, images=grid, overlap=TESTED / POOL).lasting / 3)
    left = float(np.mean(true)) - float(np.mean(parts)) - float(np.mean(lasting))
    ratio = left / float(np.mean(lasting))
    return {"training_to_test": ratio} | {key: float(np.mean(row)) for key, row in told.items()}


def reach(item: Paired) -> float:
    """Half of an interval."""
    return item.high - item.mean if item.high is not None else 0.0


def main() -> None:
    """Write the table and say what it comes to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("outputs"), help="where the run that makes the features goes")
    parser.add_argument("--every", type=int, default=5, help="take one class in so many")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # fixed numbers of epochs are part of two learners
    classes = sorted(path.name for path in options.root.iterdir() if path.is_dir())[:: options.every]
    inputs, targets = features(options.root, options.runs, size=64, classes=classes)
    studies = list(pools(inputs, targets))
    names = list(learners(0))
    rows = [
        {"first": names[one], "second": names[other], "pools": len(studies)} | judge(studies, one, other)
        for one, other in itertools.combinations(range(len(names)), 2)
    ]
    with Path(__file__).with_name("pools.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )
    print({key: round(float(np.mean([row[key] for row in rows])), 3) for key in list(rows[0])[2:]})


if __name__ == "__main__":
    main()
