"""The pictures of a finished run, from its own files and data."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.datamodule import ImageDataModule
from headstart.data.images import read_image
from headstart.data.records import Records
from headstart.plots.confident_errors import plot_confident_errors
from headstart.plots.confusion import plot_confusion_matrix
from headstart.plots.curves import phases_from, plot_learning_curves
from headstart.plots.predicted_vs_true import plot_predicted_vs_true
from headstart.runs.directory import RunDirectory
from headstart.runs.result import read_metrics_csv
from headstart.tasks.predictions import Predictions, ScoredModel


def draw_run(run: RunDirectory, module: ScoredModel, data: ImageDataModule, *, best_epoch: int | None) -> None:
    """Learning curves, and of the last split scored what its task is best seen by."""
    if run.metrics_file.exists():
        rows = read_metrics_csv(run.metrics_file)
        plot_learning_curves(rows, run.plots / "learning_curves.png", phases=phases_from(rows), best_epoch=best_epoch)
    split = "test" if "test" in module.predictions else "val"
    found = module.predictions[split]
    if module.task.one_class:
        _draw_classes(run.plots, split, found, data)
    elif module.task.name == "regression":
        _draw_numbers(run.plots, split, found, data.classes)


def _draw_classes(folder: Path, split: str, found: Predictions, data: ImageDataModule) -> None:
    """A confusion matrix and the most confident errors."""
    predicted = found.probabilities.argmax(axis=1)
    plot_confusion_matrix(found.targets, predicted, data.classes, folder / "confusion.png", title=split)
    plot_confident_errors(
        _Pictures(data.records(split), found.index, data.spec.channels if data.spec else 3),
        found.targets.tolist(),
        predicted.tolist(),
        found.probabilities.max(axis=1).tolist(),
        folder / "confident_errors.png",
        classes=data.classes,
        title=split,
    )


def _draw_numbers(folder: Path, split: str, found: Predictions, names: Sequence[str]) -> None:
    """For each quantity the predicted values against the true ones."""
    for column, name in enumerate(names):
        file = "predicted_vs_true.png" if len(names) == 1 else f"predicted_vs_true_{_safe(name)}.png"
        values = found.targets[:, column], found.probabilities[:, column]
        plot_predicted_vs_true(*values, folder / file, name=name, title=split)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", name)


class _Pictures(Sequence[np.ndarray]):
    """Images of a split, decoded when asked for."""

    def __init__(self, records: Records, index: np.ndarray, channels: int) -> None:
        self._records, self._index, self._channels = records, index, channels

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position: Any) -> Any:
        image = self._records.images[self._index[position]]
        if isinstance(image, Path):
            return np.asarray(read_image(image, self._channels if self._channels in (1, 3) else 3))
        return image if isinstance(image, np.ndarray) else image.draw()
