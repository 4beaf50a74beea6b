"""The pictures of a finished run, from its own files and data."""

from collections.abc import Sequence

import numpy as np

from headstart.confusion import plot_confusion_matrix
from headstart.data.datamodule import ImageDataModule
from headstart.data.images import read_image
from headstart.data.records import Records
from headstart.module import TransferModule
from headstart.plots import phases_from, plot_confident_errors, plot_learning_curves
from headstart.results import read_metrics_csv
from headstart.run import RunDirectory


def draw_run(run: RunDirectory, module: TransferModule, data: ImageDataModule, *, best_epoch: int | None) -> None:
    """Learning curves, and for the last split scored a confusion matrix and the most confident errors."""
    if run.metrics_file.exists():
        rows = read_metrics_csv(run.metrics_file)
        plot_learning_curves(rows, run.plots / "learning_curves.png", phases=phases_from(rows), best_epoch=best_epoch)
    split = "test" if "test" in module.predictions else "val"
    found = module.predictions[split]
    predicted = found.probabilities.argmax(axis=1)
    plot_confusion_matrix(found.targets, predicted, data.classes, run.plots / "confusion.png", title=split)
    plot_confident_errors(
        _Pictures(data.records(split), found.index, data.spec.channels if data.spec else 3),
        found.targets,
        predicted,
        found.probabilities.max(axis=1),
        run.plots / "confident_errors.png",
        classes=data.classes,
        title=split,
    )


class _Pictures(Sequence[np.ndarray]):
    """Images of a split, decoded when asked for."""

    def __init__(self, records: Records, index: np.ndarray, channels: int) -> None:
        self._records, self._index, self._channels = records, index, channels

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position):  # type: ignore[no-untyped-def, override]
        image = self._records.images[self._index[position]]
        if isinstance(image, np.ndarray):
            return image
        return np.asarray(read_image(image, self._channels if self._channels in (1, 3) else 3))
