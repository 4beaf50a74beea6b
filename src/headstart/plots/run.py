"""The pictures of a finished run, from its own files and data, and of what a model answers to any images."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from headstart.data.datamodule import ImageDataModule
from headstart.data.dataset import ImageDataset
from headstart.plots.confident_errors import plot_confident_errors
from headstart.plots.confusion import plot_confusion_matrix
from headstart.plots.curves import phases_from, plot_learning_curves
from headstart.plots.masks import Example, plot_masks
from headstart.plots.predicted_vs_true import plot_predicted_vs_true
from headstart.runs.directory import RunDirectory
from headstart.runs.result import read_metrics_csv
from headstart.tasks import Segmentation, Task
from headstart.tasks.predictions import Predictions, ScoredModel

_MOST_MASKS = 6


def draw_run(run: RunDirectory, module: ScoredModel, data: ImageDataModule, *, best_epoch: int | None) -> None:
    """Learning curves, and of the last split scored what its task is best seen by."""
    if run.metrics_file.exists():
        rows = read_metrics_csv(run.metrics_file)
        plot_learning_curves(rows, run.plots / "learning_curves.png", phases=phases_from(rows), best_epoch=best_epoch)
    split = "test" if "test" in module.predictions else "val"
    found, dataset = module.predictions[split], data.dataset(split)
    if isinstance(module.task, Segmentation):
        plot_masks(_examples(module, found, dataset), module.task.classes, run.plots / "masks.png", title=split)
        return
    images = Decoded([(dataset, int(place)) for place in found.index])
    draw_answers(run.plots, split, module.task, found.targets, found.probabilities, images)


def _examples(module: ScoredModel, found: Predictions, dataset: ImageDataset) -> list[Example]:
    """Some images at the size the network sees, evenly from the one with the fewest right pixels to the best."""
    task, model = module.task, module.model.eval()
    assert isinstance(task, Segmentation)
    right = task.right(torch.from_numpy(found.outputs)).numpy()
    order = np.argsort(right, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(len(order), _MOST_MASKS)).round().astype(int)]
    examples, like = [], next(model.parameters())
    for row in chosen:
        item = dataset[int(found.index[row])]
        with torch.inference_mode():
            outputs = model(item["images"][None].to(like)).float()
        true = item["targets"].numpy()
        image = np.asarray(Image.fromarray(_bytes(dataset, int(found.index[row]))).resize(true.shape[::-1]))
        predicted = task.masks(outputs, true.shape)[0].cpu().numpy()
        examples.append(Example(image, true, predicted, float(right[row])))
    return examples


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
    numbered = enumerate(map(_safe, names), start=1)  # two names may be alike but for what no file name has
    several = [f"predicted_vs_true_{number}_{name}.png" for number, name in numbered]
    files = several if len(names) > 1 else ["predicted_vs_true.png"]
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
        return _bytes(*self._places[position])


def _bytes(dataset: ImageDataset, place: int) -> np.ndarray:
    image = dataset.image(place)
    return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
