"""What arms scored, repetition by repetition and image by image, laid out for paired comparison.

Beside that, what a reader should know of an arm first: how many images it was fitted on, whether it had come to rest,
and how much the choice of its epoch flatters it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from headstart.runs.mask_scores import over_images
from headstart.runs.reader import RunRecord
from headstart.study.compare import drawn_few, folds_of, split_of_run
from headstart.study.paired import Paired, paired_difference
from headstart.study.statistics import FEWEST

Cell = Mapping[str, RunRecord]

STILL_FALLING = 0.05
"""A training loss that fell by more than this share of itself between the last two quarters was still falling."""

_ROUNDED = 1e-4


@dataclass(frozen=True)
class Scope:
    """What varied between the repetitions of a comparison, and so what it covers.

    Attributes:
        seeds: how many.
        splits: how many; from five on they are the repetitions.
        drawn: the training images are few of a larger pool, drawn anew with each split.
        folds: of a cross-validation, which the splits are then; 0: none.
        images: on which the metric was computed; 0 where they are not known one by one.
        split: ``test`` or ``val``.
    """

    seeds: int
    splits: int
    drawn: bool
    images: int
    split: str
    folds: int = 0

    @property
    def over_splits(self) -> bool:
        """Other splits are covered, not those at hand alone."""
        return self.splits >= FEWEST

    def __str__(self) -> str:
        if self.over_splits:
            kind = "draws of the training images" if self.drawn else "folds" if self.folds else "splits of the images"
            said = f"{self.splits} {kind}"
        else:
            kind = "fold" if self.folds else "split"
            splits = f"one {kind}" if self.splits == 1 else f"these {self.splits} {kind}s"
            said = f"{self.seeds} seed{'' if self.seeds == 1 else 's'} on {splits}"
        images = f"{self.images} {'test' if self.split == 'test' else 'validation'} images"
        images += " in each" if self.folds else ""
        return f"{said} and {images}" if self.images else said


class Pairing:
    """Comparisons in one metric; every run's predictions are read once.

    Args:
        metric: flat name; image by image it is known for plain accuracy, ``<split>/acc``, and for every score of masks.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.split, self._short = metric.split("/", 1)[0], metric.rsplit("/", 1)[-1]
        self._columns: dict[str, int] = {}
        self._right: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}

    def compare(self, first: Cell, second: Cell | None) -> Paired | None:
        """One arm's runs minus another's, paired by split and seed; None where they share none.

        Without a ``second`` the scores themselves, as differences from zero.
        With five splits or more the splits are the repetitions, each with the mean over its seeds; with fewer the runs
        are, and what is said holds for these splits.
        """
        cells = [first] if second is None else [first, second]
        keys = [key for key in first if all(key in cell and self.metric in cell[key].metrics for cell in cells)]
        if not keys:
            return None
        splits: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            splits[split_of_run(first[key])].append(key)
        over_splits = len(splits) >= FEWEST
        exact = len(splits) == 1 and all(deterministic(cell.values()) for cell in cells)
        groups = list(splits.values()) if over_splits else [[key] for key in (keys[:1] if exact else keys)]
        scores = [
            [float(np.mean([cell[key].metrics[self.metric] for key in group])) for group in groups] for cell in cells
        ]
        scores += [[0.0] * len(groups)] * (2 - len(cells))
        run = first[keys[0]]
        share = tested_share(run, self.split) if over_splits else 0.0
        grid = self._grid(cells, groups)
        # Of masks no image is just right or wrong.
        step = 0.0 if run.masks(self.split) is not None else 1.0
        if share and not drawn_few(run):
            return paired_difference(scores[0], scores[1], images=grid, step=step, overlap=share)
        drawn = drawn_share(run) if over_splits else 0.0
        choices = {"step": step, "shared": share or 1.0, "drawn": drawn}
        return paired_difference(scores[0], scores[1], images=grid, exact=exact, **choices)

    def scope(self, runs: Sequence[RunRecord]) -> Scope:
        """What a comparison of these runs covers."""
        right = self._of(runs[0])
        return Scope(
            seeds=len({run.seed for run in runs}),
            splits=len({split_of_run(run) for run in runs}),
            drawn=drawn_few(runs[0]),
            images=0 if right is None else len(right[0]),
            split=self.split,
            folds=folds_of(runs[0]),
        )

    def _grid(self, cells: Sequence[Cell], groups: Sequence[Sequence[str]]) -> np.ndarray | None:
        """``(n, N)`` differences image by image, NaN where a repetition has not seen an image."""
        rows = []
        for group in groups:
            found = [[self._of(cell[key]) for cell in cells] for key in group]
            seen = [item for pair in found for item in pair if item is not None]
            if len(seen) < len(found) * len(cells) or any(not np.array_equal(seen[0][0], at) for at, _ in seen):
                return None
            right = np.array([right for _, right in seen]).reshape(len(group), len(cells), -1)
            rows.append((seen[0][0], (right[:, 0] - (right[:, 1] if len(cells) > 1 else 0.0)).mean(axis=0)))
        grid = np.full((len(rows), len(self._columns)), np.nan)
        for row, (places, gaps) in enumerate(rows):
            grid[row, places] = gaps
        return grid[:, np.isfinite(grid).any(axis=0)]

    def _of(self, run: RunRecord) -> tuple[np.ndarray, np.ndarray] | None:
        key = str(run.path)
        if key not in self._right:
            self._right[key] = self._read(run)
        return self._right[key]

    def _read(self, run: RunRecord) -> tuple[np.ndarray, np.ndarray] | None:
        found = run.predictions(self.split) if self._short == "acc" else None
        values, rounded = None, _ROUNDED
        if found is not None:
            values = right_answers(found.probabilities, found.targets)
            rounded += 0.5 / len(values)
        elif (found := run.masks(self.split)) is not None:
            values = over_images(found, self._short)
        # An accuracy of another kind (a mean over classes, say) is no mean over images.
        if found is None or values is None or abs(float(values.mean()) - run.metrics[self.metric]) > rounded:
            return None
        columns = self._columns
        return np.array([columns.setdefault(str(name), len(columns)) for name in found.ids]), values


def deterministic(runs: Iterable[RunRecord]) -> bool:
    """Nothing in these runs is random: other seeds on the same split gave every metric to the last digit."""
    by_split: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for run in runs:
        by_split[split_of_run(run)].append(run.metrics)
    several = [found for found in by_split.values() if len(found) > 1]
    return bool(several) and all(other == found[0] for found in several for other in found[1:])


def tested_share(run: RunRecord, split: str) -> float:
    """The share of the pool that was carved for a split; 0 where the data set brings that split itself."""
    data = run.result.data
    if split not in data.get("carved", ()):
        return 0.0
    if split == "test" and (folds := folds_of(run)):
        return 1 / folds
    said = run.composed.get(f"datamodule.{split}_fraction")
    sizes = data["sizes"]
    return float(said) if isinstance(said, int | float) and said else sizes[split] / sum(sizes.values())


def drawn_share(run: RunRecord) -> float:
    """The share of the pool that a run with few images was trained on; 0 where the size of the pool is not known."""
    sizes = run.result.data["sizes"]
    pools = [sizes[split] / share for split in ("test", "val") if (share := tested_share(run, split))]
    return min(0.9, sizes["train"] / max(pools[0], 1)) if pools and drawn_few(run) else 0.0


def fitted_images(runs: Sequence[RunRecord]) -> int:
    """Images that the model was fitted on: for training, and for validation where a solved head refits on both."""
    found = []
    for run in runs:
        solved = run.result.details.get("closed_form")
        count = solved.get("images") if isinstance(solved, Mapping) else None
        found.append(count if isinstance(count, int) else run.result.data["sizes"].get("train", 0))
    return round(float(np.mean(found)))


def unconverged(runs: Sequence[RunRecord]) -> bool:
    """Most of these runs ended early: the best epoch is the last one validated, and the training loss still fell."""
    return sum(_ended_early(run) for run in runs) > len(runs) / 2


def chosen_on_score(runs: Sequence[RunRecord], metric: str) -> float | None:
    """By how much choosing the epoch on the images that are scored flatters an arm; None where no run has recorded it.

    The mean of the runs' own estimates (:func:`headstart.training.choice.optimism`), which are of the accuracy that
    chose their epochs.
    """
    noted = [run.result.details.get("choice") for run in runs if run.result.details.get("monitor") == metric]
    sizes = [choice["optimism"] for choice in noted if isinstance(choice, Mapping) and "optimism" in choice]
    return float(np.mean(sizes)) if sizes else None


def _ended_early(run: RunRecord) -> bool:
    details = run.result.details
    fit, monitor = details.get("fit"), str(details.get("monitor", "val/acc"))
    validated = [int(row["epoch"]) for row in run.history if "epoch" in row and monitor in row]
    if not isinstance(fit, Mapping) or not validated:
        return False
    best, fall = fit.get("best_epoch"), fit.get("train_loss_fall")
    return isinstance(fall, float) and fall > STILL_FALLING and best == validated[-1]


def right_answers(probabilities: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """``(N,)``, 1 where the most probable class is the true one."""
    return (two_columns(probabilities).argmax(axis=1) == np.asarray(targets)).astype(np.float64)


def two_columns(probabilities: ArrayLike) -> np.ndarray:
    """Probabilities with one column per class: a binary task's single column gains its complement."""
    chances = np.asarray(probabilities, dtype=np.float64)
    return np.hstack([1 - chances, chances]) if chances.shape[1] == 1 else chances
