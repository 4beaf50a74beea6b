"""Image by image: what is confused with what, how sure the models were, and which images strategies disagree on.

The numbers, and the plots of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from headstart.plots.confusion import COUNTED_CLASSES, confusion_counts, draw_confusion
from headstart.plots.style import MUTED, Plot, canvas, legend_above, shorten
from headstart.runs.reader import StoredPredictions
from headstart.study.analysis import Analysis, Setting
from headstart.study.labels import Sheet
from headstart.study.samples import two_columns
from headstart.study.statistics import MeanInterval, mean_interval

BINS = 10
MOST_PANELS = 4


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error, and per bin of confidence (empty bins left out) what was said and what was true.

    Attributes:
        error: the mean gap between confidence and accuracy, weighted by the images in each bin, from 0 to 1.
        confidence: mean confidence of each bin, ``(B,)``.
        accuracy: share of right answers in each bin, ``(B,)``.
        count: images in each bin, ``(B,)``.
    """

    error: float
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def calibration(probabilities: ArrayLike, targets: ArrayLike, bins: int = BINS) -> Calibration:
    """Compare the top class's probability with how often it is right (Guo et al. 2017, equation 3).

    Bins have equal width and hold ``low < confidence <= high``.

    Args:
        probabilities: ``(N, C)``; a single column is the probability of class 1.
        targets: ``(N,)`` class positions.
        bins: how many.
    """
    chances, truth = two_columns(probabilities), np.asarray(targets)
    top = chances.max(axis=1)
    right = chances.argmax(axis=1) == truth
    places = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    used = count > 0
    confidence = np.bincount(places, weights=top, minlength=bins)[used] / count[used]
    accuracy = np.bincount(places, weights=right, minlength=bins)[used] / count[used]
    error = float(np.sum(count[used] / len(truth) * np.abs(confidence - accuracy)))
    return Calibration(error, confidence, accuracy, count[used])


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


def of_each_class(counts: np.ndarray) -> dict[str, np.ndarray]:
    """``precision``, ``recall`` and ``f1`` of each class, ``(C,)``; NaN where none was predicted or is there.

    Args:
        counts: ``(C, C)``, true class by row.
    """
    hits, said, true = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return {"precision": hits / said, "recall": hits / true, "f1": 2 * hits / (said + true)}


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


def reliability(sheet: Sheet, runs: Mapping[str, Sequence[StoredPredictions]]) -> Plot | None:
    """How often each value is right, by how sure it says it is."""
    if not runs:
        return None
    rows, errors = [], {value: calibration_errors(members).mean for value, members in runs.items()}
    with canvas(3.4, legend=True) as (figure, axes):
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        for value, members in runs.items():
            pooled = pooled_calibration(members)
            label = f"{value}, error {100 * errors[value]:.1f} %"
            sheet.line(axes, value, 100 * pooled.confidence, 100 * pooled.accuracy, label=label)
            rows += [
                {"value": value, "confidence": said, "accuracy": true, "images": count,
                 "calibration_error": errors[value]}
                for said, true, count in zip(pooled.confidence, pooled.accuracy, pooled.count, strict=True)
            ]  # fmt: skip
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.set_xlabel("how sure the model says it is, %")
        axes.set_ylabel("how often it is right, %")
        legend_above(figure, axes, columns=1)
        words = "; ".join(f"{value} {100 * error:.1f} %" for value, error in errors.items())
        return sheet.finish(
            figure,
            "calibration",
            title="When it says 90 %, is it right nine times in ten?",
            caption="On the dashed line confidence and truth agree; below it a model is too sure of itself. The "
            "error is the mean gap over all images (expected calibration error, ten bins, mean over runs).",
            alt=f"Reliability curves. Expected calibration error: {words}.",
            rows=rows,
        )


def confusions(sheet: Sheet, runs: Mapping[str, Sequence[StoredPredictions]]) -> list[Plot]:
    """One confusion matrix per value of the contrast; none where there are too many classes to read."""
    found = [(value, confusion(members), members[0].classes) for value, members in list(runs.items())[:MOST_PANELS]]
    # Of more classes, the table gives the most frequent mix-ups only.
    return [_confusion(sheet, *item) for item in found if len(item[1]) <= COUNTED_CLASSES]


def mix_ups(counts: np.ndarray, classes: Sequence[str], most: int = 3) -> str:
    """The most frequent mistakes in words, each as a share of its true class; empty where there are none."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    shares = wrong / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    places = [divmod(int(place), len(counts)) for place in np.argsort(-wrong, axis=None, kind="stable")[:most]]
    return "; ".join(
        f"{class_name(classes, row)} taken for {class_name(classes, column)} ({100 * shares[row, column]:.0f} %)"
        for row, column in places
        if wrong[row, column] > 0
    )


def _confusion(sheet: Sheet, value: str, counts: np.ndarray, classes: Sequence[str]) -> Plot:
    size, shares = len(counts), counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [class_name(classes, place) for place in range(size)]
    rows = [
        {"true": true, "predicted": said, "images": int(counts[row, column]), "share": shares[row, column]}
        for row, true in enumerate(names)
        for column, said in enumerate(names)
    ]
    height = min(6.2, 1.6 + 0.46 * size)
    with canvas(height) as (figure, axes):
        draw_confusion(axes, counts, [shorten(text, 14) for text in names], row_inches=(height - 1) / size)
        most = mix_ups(counts, classes) or "no mistakes"
        return sheet.finish(
            figure,
            f"confusion-{sheet.analysis.design.values.index(value) + 1}",
            title=f"What {value} confuses",
            caption=f"Images, and percent of each true class (row), over all seeds. Most often: {most}.",
            alt=f"Confusion matrix of {value} over {size} classes. Most frequent mistakes: {most}.",
            rows=rows,
        )
