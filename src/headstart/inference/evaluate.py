"""A finished run's model on new labelled images: every metric with its interval, in a folder of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.markup import escape
from torch import Tensor
from torch.utils.data import DataLoader

from headstart.config.settings import Component
from headstart.data.dataset import ImageDataset
from headstart.data.images import MAX_PIXELS
from headstart.data.manifest import KIND_OF_TASK
from headstart.data.records import Records, Source
from headstart.data.targets import as_numbers, only_classes
from headstart.errors import DataError, RunError
from headstart.execution.load import Model, find_device
from headstart.inference.comparison import COMPARED, Comparison, compare
from headstart.inference.evaluation_page import PAGE, SCORED, write_page
from headstart.inference.resampling import DRAWS, measured, percentiles, resampled
from headstart.plots.confident_errors import most_confident_errors
from headstart.plots.run import Decoded, draw_answers
from headstart.runs.result import to_plain
from headstart.system.atomic import atomic_write, write_json, write_rows
from headstart.system.console import plain_table, show
from headstart.tasks import Task

_WORST = 100


@dataclass(frozen=True)
class Score:
    """A metric on the new images.

    Attributes:
        value: on all of them.
        low: end of its 95 % interval over images (percentile bootstrap); NaN where it is not defined.
        high: the other end.
        own: the run's own test metric, else its validation metric; None where it has none.
    """

    value: float
    low: float
    high: float
    own: float | None


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        data: name of the data set.
        split: that was scored, or ``all`` images.
        scores: by metric.
        ids: the images' names, ``(N,)``.
        targets: in the order of the model's classes, ``(N,)`` or ``(N, columns)``.
        probabilities: ``(N, classes)``; of regression, the predicted values.
        skipped: files that are no usable images, and why.
        outputs: of the network, ``(N, outputs)``, before the activation.
        classes: of the model, or its quantities.
    """

    data: str
    split: str
    scores: dict[str, Score]
    ids: list[str]
    targets: np.ndarray
    probabilities: np.ndarray
    skipped: list[dict[str, str]]
    outputs: Tensor
    classes: tuple[str, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """As text, in the columns of :data:`headstart.inference.evaluation_page.SCORED`."""
        return [
            (
                name,
                f"{score.value:.4f}",
                f"{score.low:.4f} to {score.high:.4f}" if math.isfinite(score.low) else "-",
                "-" if score.own is None else f"{score.own:.4f}",
            )
            for name, score in self.scores.items()
        ]


def evaluate(
    model: Model,
    choice: Component,
    folder: Path,
    *,
    others: Sequence[Model] = (),
    split: str = "auto",
    batch_size: int = 64,
    device: str = "auto",
) -> tuple[Evaluation, list[Comparison]]:
    """Score a model on labelled images and write a report; the run stays as it is.

    Args:
        model: of a finished run.
        choice: the datamodule of the new images.
        folder: for ``report.html`` and its files.
        others: models to compare it with on the same images.
        split: ``train``, ``val`` or ``test`` of the data, ``all`` of it, or ``auto``: test where the data have it,
            else all.
        batch_size: images at a time.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        DataError: the data cannot be used, or have classes that a model does not know.
        RunError: the models are of different tasks.
    """
    if odd := next((other for other in others if other.task.name != model.task.name), None):
        raise RunError(
            f"{odd.path} has task={odd.task.name} and {model.path} task={model.task.name}; compare runs of one task"
        )
    answers = partial(answered, choice=choice, split=split, batch_size=batch_size, device=device)
    found, parts = answers(model)
    compared = []
    for other in others:
        second, _ = answers(other)
        compared.append(compare(other.path.name, (model.task, found), (other.task, second)))
    per_class = model.task.per_class(found.outputs, torch.from_numpy(found.targets))
    _write(folder, model, found, per_class, compared)
    datasets = [_dataset(model, part, choice) for part in parts]
    images = Decoded([(dataset, place) for dataset in datasets for place in range(len(dataset))])
    title = f"{found.data} ({found.split})"
    pictures = draw_answers(folder, title, model.task, found.targets, found.probabilities, images)
    write_page(folder, model.path.name, found, per_class, compared, pictures)
    return found, compared


def answered(
    model: Model, choice: Component, *, split: str, batch_size: int, device: str
) -> tuple[Evaluation, list[Records]]:
    """What a model makes of labelled images, and those images; as :func:`evaluate`, without a report."""
    source = _source(model, choice)
    name, parts = _chosen(source, split)
    parts = [replace(part, targets=_as_the_model_counts(part.targets, source, model)) for part in parts]
    answered = [_outputs(model, _dataset(model, part, choice), batch_size=batch_size, device=device) for part in parts]
    whole, labels = (torch.cat(column) for column in zip(*answered, strict=True))
    targets = labels.numpy()
    probabilities = model.task.probabilities(whole).numpy()
    scores = scored(model.task, whole, labels, own=model.result.metrics)
    ids = [one for part in parts for one in part.ids]
    return Evaluation(source.name, name, scores, ids, targets, probabilities, source.bad, whole, model.classes), parts


def scored(
    task: Task, outputs: Tensor, targets: Tensor, *, own: Mapping[str, float | None], draws: int = DRAWS, seed: int = 0
) -> dict[str, Score]:
    """Every metric of the task, and the calibration error of classes, each with a bootstrap interval over images.

    Args:
        task: of the model.
        outputs: ``(N, outputs)``, before the activation.
        targets: ``(N,)`` class numbers or ``(N, columns)``.
        own: flat metrics of the run, to stand beside.
        draws: of the bootstrap.
        seed: of the draws.
    """
    values = measured(task, outputs, targets)
    drawn = resampled(task, outputs, targets, draws=draws, seed=seed)
    return {
        name: Score(value, *percentiles(drawn[name]), own.get(f"test/{name}", own.get(f"val/{name}")))
        for name, value in values.items()
    }


def show_evaluation(found: Evaluation, compared: Sequence[Comparison], folder: Path) -> None:
    """The metrics as a table, and a table for each comparison."""
    table = plain_table(escape(f"{len(found.ids):,} images of {found.data} ({found.split})"))
    for heading in SCORED:
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for row in found.rows():
        table.add_row(*map(escape, row))
    show(table)
    for one in compared:
        show(f"Minus {one.run}, on the same images:")  # a title would be broken at the table's width
        table = plain_table("")
        for heading in COMPARED:
            table.add_column(heading, justify="left" if heading == "metric" else "right")
        for line in one.rows():
            table.add_row(*map(escape, line))
        show(table)
    show(f"Report: {folder / PAGE}")


def _source(model: Model, choice: Component) -> Source:
    data = choice.factory(**{**choice.arguments, "seed": 0, "task": model.task.name})
    source: Source = data.load()
    if data.wanted_classes is not None:
        source = only_classes(source, data.wanted_classes)
    if model.task.name == "regression" and source.kind == "classes":
        source, splits = as_numbers(source, source.splits)
        source = replace(source, splits=splits)
    name = model.task.name
    kind = "masks" if name == "segmentation" else KIND_OF_TASK.get(name, "classes")
    if source.kind != kind:
        raise DataError(f"{source.name} has {source.kind}, and the model of task={model.task.name} is scored on {kind}")
    return source


def _chosen(source: Source, split: str) -> tuple[str, list[Records]]:
    name = split if split != "auto" else "test" if "test" in source.splits else "all"
    if name != "all" and name not in source.splits:
        raise DataError(f"--split={name}: {source.name} has no such split of its own, only {', '.join(source.splits)}")
    parts = list(source.splits.values()) if name == "all" else [source.splits[name]]
    if not sum(map(len, parts)):
        raise DataError(f"{source.name} has no usable image there")
    return name, [part for part in parts if len(part)]


def _as_the_model_counts(targets: np.ndarray, source: Source, model: Model) -> np.ndarray:
    """Targets in the order of the model's classes, which the data may have in another order, or only some of."""
    places = {name: place for place, name in enumerate(model.classes)}
    if unknown := [name for name in source.classes if name not in places]:
        raise DataError(
            f"{source.name} has {', '.join(unknown[:5])}, which the model does not know; it knows "
            f"{', '.join(model.classes[:10])}. Leave those out: datamodule.classes=[...]"
        )
    if source.kind == "masks" and source.classes != model.classes:
        raise DataError(
            f"{source.name} has the classes {', '.join(source.classes[:10])}, and the model's masks number "
            f"{', '.join(model.classes[:10])}; give them the same numbers, and name them with datamodule.class_names"
        )
    order = np.array([places[name] for name in source.classes])
    if model.task.one_class:
        return order[targets]
    if len(order) < len(places):
        raise DataError(f"{source.name} lacks {', '.join(sorted(set(places) - set(source.classes)))}, which are scored")
    sorted_targets: np.ndarray = targets[:, np.argsort(order)]
    return sorted_targets


def _dataset(model: Model, records: Records, choice: Component) -> ImageDataset:
    most = choice.arguments.get("max_pixels") or MAX_PIXELS
    return ImageDataset(records, model.transform, channels=model.transform.spec.channels, seed=0, max_pixels=most)


def _outputs(model: Model, dataset: ImageDataset, *, batch_size: int, device: str) -> tuple[Tensor, Tensor]:
    """``(N, outputs)`` before the activation with their targets, as :meth:`Task.rows` keeps them, on the CPU."""
    place, network = find_device(device), model.network
    network.to(place).eval()
    batches = DataLoader(dataset, batch_size=batch_size)
    with torch.inference_mode():
        rows = [
            model.task.rows(network(batch["images"].to(place)).float().cpu(), batch["targets"]) for batch in batches
        ]
    outputs, targets = zip(*rows, strict=True)
    return torch.cat(outputs), torch.cat(targets)


def _write(
    folder: Path,
    model: Model,
    found: Evaluation,
    per_class: Mapping[str, Sequence[float]],
    compared: Sequence[Comparison],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "run": model.path.name,
        "fingerprint": model.result.fingerprint,
        "data": found.data,
        "split": found.split,
        "images": len(found.ids),
        "draws": DRAWS,
        "metrics": {name: asdict(score) for name, score in found.scores.items()},
        "per_class": per_class,
        "skipped": found.skipped,
        "compared": [asdict(one) for one in compared],
    }
    write_json(folder / "evaluation.json", to_plain(about))
    with atomic_write(folder / "predictions.npz", "wb") as file:
        np.savez_compressed(
            file,
            ids=np.asarray(found.ids),
            targets=found.targets,
            probabilities=found.probabilities,
            classes=np.asarray(model.classes),
        )
    write_rows(folder / "worst.csv", _worst(model, found))


def _worst(model: Model, found: Evaluation) -> list[dict[str, Any]]:
    """The confidently wrong images first; of several labels or numbers those with the largest error."""
    values = found.probabilities
    if model.task.one_class:
        predicted = values.argmax(axis=1)
        places = most_confident_errors(found.targets.tolist(), predicted.tolist(), values.max(axis=1), limit=_WORST)
        names = model.classes
        return [
            {
                "image": found.ids[place],
                "true": names[found.targets[place]],
                "predicted": names[predicted[place]],
                "probability": round(float(values[place].max()), 5),
            }
            for place in places
        ]
    errors = np.abs(values - found.targets).max(axis=1)
    worst = np.argsort(-errors, kind="stable")[:_WORST]
    return [{"image": found.ids[place], "largest_error": round(float(errors[place]), 5)} for place in worst]
