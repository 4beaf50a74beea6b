"""Classifying new images with a finished run, preprocessed exactly as in that run."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import torch
from torch import Tensor

from headstart.data.images import read_image
from headstart.data.scan import list_images
from headstart.errors import DataError
from headstart.tasks.multilabel import THRESHOLD

if TYPE_CHECKING:
    from headstart.execution.load import LoadedRun

_DECODERS = 8


@dataclass(frozen=True)
class Prediction:
    """What a run says about one image.

    Attributes:
        path: of the image, as it was found.
        label: the most probable class; of several labels those predicted, with ``|`` between; of numbers nothing.
        probabilities: of every class, in the run's order; of numbers the predicted values.
    """

    path: str
    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Unreadable:
    """A file that is no usable image, and why."""

    path: str
    reason: str


def find_images(inputs: Iterable[str | Path]) -> list[str]:
    """Files as given, folders as the image files below them; each path once.

    Raises:
        DataError: something does not exist, or a folder holds no image.
    """
    found: dict[str, None] = {}
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_dir():
            names = list_images(path)
            if not names:
                raise DataError(f"{given} holds no image files; give image files or a folder of them.")
            found |= dict.fromkeys((path / name).as_posix() for name in names)
        elif path.exists():
            found[path.as_posix()] = None
        else:
            raise DataError(f"{given} does not exist; give image files or a folder of them.")
    return list(found)


def predict(
    run: "LoadedRun", paths: Sequence[str], *, batch_size: int = 32, device: str = "auto"
) -> Iterator[Prediction | Unreadable]:
    """Classify images one batch at a time, in the order of ``paths``.

    The next batch is decoded while the network works on the present one.
    """
    place = torch.device(_best_device() if device == "auto" else device)
    model = run.model.to(place).eval()

    def load(path: str) -> Tensor | Unreadable:
        try:
            return run.eval_transform(read_image(path, run.input_spec.channels))
        except DataError as error:
            return Unreadable(path, str(error))

    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(_DECODERS) as pool:
        coming = [pool.submit(load, path) for path in batches[0]] if batches else []
        for number, batch in enumerate(batches):
            loaded = [future.result() for future in coming]
            coming = [pool.submit(load, path) for path in batches[number + 1]] if number + 1 < len(batches) else []
            images = [item for item in loaded if isinstance(item, Tensor)]
            rows = iter(_probabilities(run, model, torch.stack(images).to(place)) if images else ())
            for path, item in zip(batch, loaded, strict=True):
                yield _prediction(path, next(rows), run) if isinstance(item, Tensor) else item


def write_csv(
    file: IO[str], classes: Sequence[str], predictions: Iterable[Prediction], *, task: str = "multiclass"
) -> None:
    """One line an image: ``path``, ``class`` (or ``labels``), and ``probability/<class>`` for every class.

    For regression: ``path`` and a column for every quantity.
    """
    writer = csv.writer(file, lineterminator="\n")
    numbers = task == "regression"
    label = [] if numbers else ["labels" if task == "multilabel" else "class"]
    writer.writerow(["path", *label, *(name if numbers else f"probability/{name}" for name in classes)])
    for row in predictions:
        values = (f"{value:.6g}" for value in row.probabilities)
        writer.writerow([row.path, *([] if numbers else [row.label]), *values])


def _probabilities(run: "LoadedRun", model: torch.nn.Module, images: Tensor) -> list[list[float]]:
    with torch.inference_mode():
        return run.task.probabilities(model(images).float()).cpu().tolist()


def _prediction(path: str, probabilities: list[float], run: "LoadedRun") -> Prediction:
    if run.task.name == "regression":
        label = ""
    elif run.task.name == "multilabel":
        chosen = (name for name, value in zip(run.classes, probabilities, strict=True) if value >= THRESHOLD)
        label = "|".join(chosen)
    else:
        label = run.classes[max(range(len(probabilities)), key=probabilities.__getitem__)]
    return Prediction(path, label, tuple(probabilities))


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
