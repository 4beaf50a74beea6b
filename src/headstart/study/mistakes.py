"""Image by image: what is confused with what, how sure the models were, and which images strategies disagree on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.plots.confusion import confusion_counts
from headstart.runs.reader import StoredPredictions
from headstart.study.analysis import Analysis, Setting
from headstart.study.calibration import Calibration, calibration, two_columns
from headstart.study.statistics import MeanInterval, mean_interval


@dataclass(frozen=True)
class Changed:
    """One image that values of the contrast classify differently.

    Attributes:
        id: the image's name.
        target: its true class.
        predicted: per value, the class that most seeds chose.
        right: per value, the share of seeds that were right.
    """

    id: str
    target: str
    predicted: Mapping[str, str]
    right: Mapping[str, float]


def evaluated_split(analysis: Analysis) -> str:
    """The split that the deciding metric was computed on."""
    return "test" if analysis.metric.name.startswith("test/") else "val"


def predictions_of(analysis: Analysis, setting: Setting) -> dict[str, list[StoredPredictions]]:
    """Per value of the contrast the predictions of its runs in one setting, all over the same images."""
    split = evaluated_split(analysis)
    found: dict[str, list[StoredPredictions]] = {}
    first: StoredPredictions | None = None
    for value in analysis.design.values:
        for run in analysis.design.cells.get((value, setting), {}).values():
            predictions = run.predictions(split)
            if predictions is None:
                continue
            first = first or predictions
            same = np.array_equal(first.ids, predictions.ids) and np.array_equal(first.targets, predictions.targets)
            if same and first.classes == predictions.classes:
                found.setdefault(value, []).append(predictions)
    return found


def confusion(runs: Sequence[StoredPredictions]) -> np.ndarray:
    """``(C, C)`` counts summed over runs: true class by row, predicted class by column."""
    size = max(len(runs[0].classes), *(two_columns(run.probabilities).shape[1] for run in runs))
    predicted = np.concatenate([two_columns(run.probabilities).argmax(axis=1) for run in runs])
    return confusion_counts(np.concatenate([run.targets for run in runs]), predicted, size)


def pooled_calibration(runs: Sequence[StoredPredictions]) -> Calibration:
    """Reliability of all runs' predictions together: more images per bin than one run has."""
    chances = np.concatenate([two_columns(run.probabilities) for run in runs])
    return calibration(chances, np.concatenate([run.targets for run in runs]))


def calibration_errors(runs: Sequence[StoredPredictions]) -> MeanInterval:
    """Mean over runs of each run's own expected calibration error."""
    return mean_interval([calibration(run.probabilities, run.targets).error for run in runs])


def changed_images(runs: Mapping[str, Sequence[StoredPredictions]]) -> list[Changed]:
    """Images whose usual prediction (over seeds) differs between values, the clearest differences first."""
    if len(runs) < 2:
        return []
    first = next(iter(runs.values()))[0]
    usual, right = {}, {}
    for value, members in runs.items():
        votes = np.stack([two_columns(run.probabilities).argmax(axis=1) for run in members])
        size = max(len(first.classes), int(votes.max()) + 1)
        counts = np.stack([(votes == label).sum(axis=0) for label in range(size)])
        usual[value] = counts.argmax(axis=0)
        right[value] = (votes == first.targets).mean(axis=0)
    spread = np.ptp(np.stack(list(right.values())), axis=0)
    differs = np.ptp(np.stack(list(usual.values())), axis=0) > 0
    places = sorted(np.flatnonzero(differs), key=lambda place: (-spread[place], str(first.ids[place])))
    return [
        Changed(
            id=str(first.ids[place]),
            target=class_name(first.classes, int(first.targets[place])),
            predicted={value: class_name(first.classes, int(found[place])) for value, found in usual.items()},
            right={value: float(share[place]) for value, share in right.items()},
        )
        for place in places
    ]


def class_name(classes: Sequence[str], position: int) -> str:
    """The name of a class, or its number where there is none."""
    return classes[position] if 0 <= position < len(classes) else str(position)
