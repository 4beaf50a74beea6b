"""The pictures of a finished run, from its own files and data, and of what a model answers to any images."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.datamodule import ImageDataModule
from headstart.data.dataset import ImageDataset
from headstart.plots.confident_errors import plot_confident_errors
from headstart.plots.confusion import plot_confusion_matrix
from headstart.plots.curves import phases_from, plot_learning_curves
from headstart.plots.predicted_vs_true import plot_predicted_vs_true
from headstart.runs.directory import RunDirectory
from headstart.runs.result import read_metrics_csv
from headstart.tasks import Task
from headstart.tasks.predictions import ScoredModel


def draw_run(run: RunDirectory, module: ScoredModel, data: ImageDataModule, *, best_epoch: int | None) -> None:
    """Learning curves, and of the last split scored what its task is best seen by."""
    if run.metrics_file.exists():
        rows = read_metrics_csv(run.metrics_file)
        plot_learning_curves(rows, run.plots / "learning_curves.png", phases=phases_from(rows), best_epoch=best_epoch)
    split = "test" if "test" in module.predictions else "val"
    found, dataset = module.predictions[split], data.dataset(split)
    images = Decoded([(dataset, int(place)) for place in found.index])
    draw_answers(run.plots, split, module.task, found.targets, found.probabilities, images)


def draw_answers(
    folder: Path,
    title: str,
    task: Task,
    targets: np.ndarray,
    probabilities: np.ndarray,
    images: Sequence[np.ndarray],
) -> list[str]:
    """Of classes a confusion matrix and the most confident errors, of numbers the predicted values against the true.

    Args:
        folder: for the PNG files.
        title: above them.
        task: of the model.
        targets: ``(N,)`` class numbers or ``(N, columns)``.
        probabilities: ``(N, classes)``; of regression, the predicted values.
        images: decoded when asked for.

    Returns: the names of the files.
    """
    names = task.classes
    if task.one_class:
        predicted = probabilities.argmax(axis=1)
        plot_confusion_matrix(targets, predicted, names, folder / "confusion.png", title=title)
        plot_confident_errors(
            images,
            targets.tolist(),
            predicted.tolist(),
            probabilities.max(axis=1).tolist(),
            folder / "confident_errors.png",
            classes=names,
            title=title,
        )
        return ["confusion.png", "confident_errors.png"]
    if task.name != "regression":
        return []
    files = ["predicted_vs_true.png"] if len(names) == 1 else [f"predicted_vs_true_{_safe(name)}.png" for name in names]
    for column, (name, file) in enumerate(zip(names, files, strict=True)):
        plot_predicted_vs_true(targets[:, column], probabilities[:, column], folder / file, name=name, title=title)
    return files


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", name)


class Decoded(Sequence[np.ndarray]):
    """Images as bytes for people, decoded when asked for.

    Args:
        places: each image's data set and its position there.
    """

    def __init__(self, places: Sequence[tuple[ImageDataset, int]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: Any) -> Any:
        dataset, place = self._places[position]
        image = dataset.image(place)
        return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
