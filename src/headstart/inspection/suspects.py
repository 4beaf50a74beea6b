"""Images whose label surprises models that were not trained on them: the labels that are most likely wrong.

What is known of an image comes from outside its own training: from the runs of a cross-validation, each judging its own
fold, or, of a single run, from logistic regression in five folds over the features of a backbone that has seen no label
of these images. The loss of the given label ranks them (self-confidence: Northcutt, Jiang and Chuang, "Confident
Learning", JAIR 2021, section 3). An image that is hard or odd has a high loss too, so people decide.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.backbones.contract import Backbone
from headstart.config.foreign import foreign_component
from headstart.config.settings import Component
from headstart.config.weights import resolve_backbone_weights
from headstart.data.datamodule import ImageDataModule
from headstart.data.input_spec import InputSpec
from headstart.data.manifest import KIND_OF_TASK
from headstart.errors import RunError
from headstart.execution.load import load
from headstart.model.features import pooled_features
from headstart.runs.reader import RunRecord, read_config, read_predictions
from headstart.study.samples import two_columns
from headstart.training.assemble import build_backbone, build_data
from headstart.transferability.examples import Labelled
from headstart.transferability.scores_probe import FOLDS, logistic_probabilities

_SURE = 1e-12
# Errors of numbers beyond so many standard deviations, estimated from their median, are told.
_FAR = 3.0
_OF_NORMAL = 1.4826


@dataclass(frozen=True)
class Judged:
    """What is said of images by models that were not trained on them.

    Attributes:
        ids: of the images.
        targets: ``(N,)`` class numbers, or ``(N, columns)`` of labels or numbers.
        values: ``(N, C)`` probabilities, or predicted numbers.
        classes: names of the columns.
        kind: of the targets: ``classes``, ``labels`` or ``values``.
        how: who says it, for people.
    """

    ids: list[str]
    targets: np.ndarray
    values: np.ndarray
    classes: tuple[str, ...]
    kind: str
    how: str


@dataclass(frozen=True)
class Suspect:
    """An image whose label should be looked at.

    Attributes:
        image: its id.
        label: that it has.
        said: that the models give it.
        probability: that they give its own label; of several labels of the least likely one; of numbers None.
        loss: of its own label: negative log probability, over all labels, or the squared error in units of the errors'
            spread.
    """

    image: str
    label: str
    said: str
    probability: float | None
    loss: float

    def row(self) -> dict[str, Any]:
        """As the table to correct has it; the last column is to be filled."""
        probability = "" if self.probability is None else f"{self.probability:.4f}"
        return {
            "image": self.image,
            "label": self.label,
            "predicted": self.said,
            "probability_of_label": probability,
            "loss": f"{self.loss:.4f}",
            "correct_label": "",
        }


def suspects(judged: Judged) -> list[Suspect]:
    """Images of which something else is said than they are labelled, the highest loss first."""
    find = {"classes": _of_classes, "labels": _of_labels, "values": _of_values}[judged.kind]
    return sorted(find(judged), key=lambda one: (-one.loss, one.image))


def judge(runs: Sequence[RunRecord], data: ImageDataModule) -> Judged:
    """Ask one run, or the runs of a cross-validation, about their images.

    Args:
        runs: finished ones over the same data.
        data: theirs, prepared and configured; of folds undivided.

    Raises:
        RunError: there are several runs and no cross-validation, folds are missing, the task gives an image no label,
            or nothing but the labels themselves has shaped the backbone.
    """
    first = runs[0]
    if (task := first.result.details["task"]) == "segmentation":
        raise RunError(f"{first.path} has task={task}; labels are looked at image by image, which masks have none of")
    if first.result.data.get("folds"):
        return _of_folds(runs)
    if len(runs) > 1:
        raise RunError(
            f"{first.path} and {len(runs) - 1} more are no cross-validation; give one run, or the runs of -m "
            "datamodule.folds=5 'datamodule.fold=range(5)'"
        )
    return _of_features(first, data)


def _of_folds(runs: Sequence[RunRecord]) -> Judged:
    """Each image as the runs see it in whose test fold it is, by the mean of their values."""
    first = runs[0].result
    names = ("content", "classes", "folds", "split_seed")
    for run in runs[1:]:
        if odd := next((name for name in names if run.result.data.get(name) != first.data.get(name)), None):
            raise RunError(f"{run.path} differs from {runs[0].path} in {odd} of its data; give runs of the same images")
    there = {int(run.result.data["fold"]) for run in runs}
    if missing := sorted(set(range(int(first.data["folds"]))) - there):
        raise RunError(
            f"the runs below {runs[0].path.parent} lack fold {', '.join(map(str, missing))} of {first.data['folds']}; "
            f"train those too: -m 'datamodule.fold={','.join(map(str, missing))}'"
        )
    values: dict[str, list[np.ndarray]] = defaultdict(list)
    targets: dict[str, np.ndarray] = {}
    for run in runs:
        found = read_predictions(run.directory.predictions_file("test"))
        rows = two_columns(found.probabilities) if found.targets.ndim == 1 else found.probabilities
        for name, target, row in zip(found.ids, found.targets, rows, strict=True):
            values[str(name)].append(row)
            targets[str(name)] = target
    ids = sorted(targets)
    kind = KIND_OF_TASK.get(first.details["task"], "classes")
    how = f"{len(runs)} runs of a cross-validation, each on the images of its own fold"
    means = np.stack([np.mean(values[name], axis=0) for name in ids])
    return Judged(ids, np.stack([targets[name] for name in ids]), means, tuple(first.data["classes"]), kind, how)


def _of_features(run: RunRecord, data: ImageDataModule) -> Judged:
    """The training images by logistic regression over features, in folds."""
    targets = data.targets("train")
    if targets.ndim > 1:
        raise RunError(
            f"{run.path} has task={run.result.details['task']}, whose images have no single class; give the runs of a "
            "cross-validation: -m datamodule.folds=5 'datamodule.fold=range(5)'"
        )
    present, counts = np.unique(targets, return_counts=True)
    if len(present) < 2:
        raise RunError(f"{run.path}: all training images have one label; there is nothing to compare")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features, _ = pooled_features(_unlabelled(run), data, "train", device)
    folds = max(2, min(FOLDS, int(counts.min())))
    found = logistic_probabilities(Labelled.of(features.double().numpy(), targets), folds=folds)
    values = np.zeros((len(targets), len(data.classes)))
    values[:, present] = found
    how = f"logistic regression in {folds} folds over the features of the run's backbone"
    return Judged(list(data.records("train").ids), targets, values, data.classes, "classes", how)


def _unlabelled(run: RunRecord) -> Backbone:
    """The run's backbone as no label of its images has shaped it: as it is where it stayed frozen, else as it began."""
    config = read_config(run.path)
    strategy = foreign_component(config, "strategy", run.path)
    if getattr(strategy.factory, "only_head_learns", False) is True:
        return load(run.path).network.backbone
    if run.result.weights.get("source") == "none":
        raise RunError(
            f"{run.path} trained its backbone from random weights on these labels, and so believes them; give the runs "
            "of a cross-validation (-m datamodule.folds=5 'datamodule.fold=range(5)'), or one of strategy=freeze"
        )
    size = config["datamodule"].get("image_size")
    weights = resolve_backbone_weights(config, scratch=False)
    return build_backbone(foreign_component(config, "backbone", run.path), weights, seed=0, image_size=size).eval()


def data_of(run: RunRecord) -> ImageDataModule:
    """The images of a run as its network sees them, undivided, going on where the same image is in two splits.

    Raises:
        HeadstartError: they cannot be used any more, or the run names what is no part of this package.
    """
    chosen = foreign_component(read_config(run.path), "datamodule", run.path)
    tolerant = Component(chosen.target, {**chosen.arguments, "folds": None, "fold": None, "on_leak": "ignore"})
    try:
        task, spec = run.result.details["task"], InputSpec.from_dict(run.result.details["input_spec"]).checked()
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{run.path} does not say what its network sees ({type(error).__name__}: {error}); copy the run directory "
            "again, or run it again"
        ) from None
    data = build_data(tolerant, seed=0, task=task)
    data.configure(spec)
    return data


def _of_classes(judged: Judged) -> list[Suspect]:
    places = np.arange(len(judged.ids))
    own, said = judged.values[places, judged.targets], judged.values.argmax(axis=1)
    loss = -np.log(np.maximum(own, _SURE))
    return [
        Suspect(
            judged.ids[place],
            judged.classes[judged.targets[place]],
            judged.classes[said[place]],
            float(own[place]),
            float(loss[place]),
        )
        for place in np.flatnonzero(said != judged.targets)
    ]


def _of_labels(judged: Judged) -> list[Suspect]:
    given, said = judged.targets > 0, judged.values >= 0.5
    own = np.where(given, judged.values, 1 - judged.values)
    loss = -np.log(np.maximum(own, _SURE)).sum(axis=1)

    def joined(row: np.ndarray) -> str:
        return "|".join(name for name, there in zip(judged.classes, row, strict=True) if there)

    return [
        Suspect(
            judged.ids[place],
            joined(given[place]),
            joined(said[place]),
            float(own[place].min()),
            float(loss[place]),
        )
        for place in np.flatnonzero((given != said).any(axis=1))
    ]


def _of_values(judged: Judged) -> list[Suspect]:
    errors = np.abs(judged.values - judged.targets)
    far = errors / np.maximum(_OF_NORMAL * np.median(errors, axis=0), np.finfo(float).tiny)

    def joined(row: np.ndarray) -> str:
        return "|".join(f"{value:.6g}" for value in row)

    return [
        Suspect(
            judged.ids[place],
            joined(judged.targets[place]),
            joined(judged.values[place]),
            None,
            float(np.square(far[place]).max()),
        )
        for place in np.flatnonzero((far > _FAR).any(axis=1))
    ]
