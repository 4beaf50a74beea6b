"""A finished run, ready to use again: its network, classes and preprocessing, on images of any kind."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headstart.config.foreign import foreign_component
from headstart.data.images import decode, read_image
from headstart.data.input_spec import InputSpec
from headstart.data.transforms import EvalTransform
from headstart.errors import DataError, HeadstartError, RunError
from headstart.execution.predict import Prediction, Unreadable
from headstart.execution.streaming import streamed
from headstart.heads.pool import Pool
from headstart.model.transfer_model import TransferModel
from headstart.runs.reader import read_config
from headstart.runs.result import CONFIG_FILE, Result, check_file, read_result
from headstart.tasks import Segmentation, Task, build_task
from headstart.training.assemble import build_backbone, build_head
from headstart.training.checkpoints import load_final, load_weights
from headstart.weights.sources import NO_WEIGHTS

Picture = str | Path | Image.Image | np.ndarray | Tensor
"""One image: a file, Pillow's, an array ``(H, W[, C])`` of bytes, or a tensor ``(C, H, W)`` of bytes or of 0 to 1."""

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Model:
    """What a finished run learned.

    Attributes:
        path: the run directory.
        config: its resolved choices.
        result: its ``result.json``.
        network: with the weights of the chosen checkpoint, in evaluation mode; on the CPU until it is asked elsewhere.
        task: turns outputs into probabilities.
        classes: in the order of the probabilities.
        transform: from a decoded image to ``(C, H, W)``, exactly as in the run; ``transform.spec`` says its size.
    """

    path: Path
    config: dict[str, Any] = field(repr=False)
    result: Result = field(repr=False)
    network: TransferModel = field(repr=False)
    task: Task = field(repr=False)
    classes: tuple[str, ...]
    transform: EvalTransform = field(repr=False)

    def predict(self, images: Picture | Sequence[Picture], *, batch_size: int = 32, device: str = "auto") -> Any:
        """Classify images, preprocessed exactly as in the run.

        Args:
            images: one, or several: a sequence, an array ``(B, H, W, C)`` or a tensor ``(B, C, H, W)``. Pixels are
                bytes, or in tensors numbers from 0 to 1; nothing is normalised yet.
            batch_size: images at a time.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Returns: a :class:`Prediction`, of several images a list of them; where every pixel is predicted, with its mask.

        Raises:
            DataError: something is no image.
        """
        several, found = _listed(images), []
        for outcome in self.stream(several, batch_size=batch_size, device=device):
            if isinstance(outcome, Unreadable):
                raise DataError(outcome.reason)
            found.append(outcome)
        return found[0] if _is_single(images) else found

    def features(self, images: Picture | Sequence[Picture], *, batch_size: int = 32, device: str = "auto") -> Tensor:
        """Pooled features of the backbone, ``(N, C)`` float32 on the CPU; ``(C,)`` of a single image.

        Args:
            images: as for :meth:`predict`.
            batch_size: images at a time.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Raises:
            DataError: something is no image.
        """
        pool, several, found = Pool(self.network.backbone.features), _listed(images), []

        def rows(batch: Tensor) -> Sequence[Tensor]:
            return list(pool(self.network.features(batch)).float().cpu())

        for _, outcome in self._stream(several, rows, batch_size=batch_size, device=device):
            if isinstance(outcome, DataError):
                raise outcome
            found.append(outcome)
        if _is_single(images):
            return found[0]
        return torch.stack(found) if found else torch.zeros(0, self.network.backbone.feature_dim)

    def stream(
        self, images: Iterable[Picture], *, batch_size: int = 32, device: str = "auto"
    ) -> Iterator[Prediction | Unreadable]:
        """Classify images one batch at a time, in their order; what is no image comes out as :class:`Unreadable`.

        The next batch is decoded while the network works on the present one; no more than two are asked for ahead.
        """
        if isinstance(self.task, Segmentation):
            yield from self._masked(images, self.task, batch_size=batch_size, device=device)
            return

        def rows(batch: Tensor) -> list[list[float]]:
            probabilities: list[list[float]] = self.probabilities(batch).tolist()
            return probabilities

        for image, outcome in self._stream(images, rows, batch_size=batch_size, device=device):
            yield self.told(image, outcome)

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Normalised ``(B, C, H, W)`` where the network is, to ``(B, classes)`` on the CPU."""
        return self.task.probabilities(self.network(pixels).float()).cpu()

    def told(
        self, image: Picture, found: Sequence[float] | DataError, task: Task | None = None
    ) -> Prediction | Unreadable:
        """What comes of an image with these probabilities, or with none; of another task where one is given."""
        if isinstance(found, DataError):
            return Unreadable(_name(image), str(found))
        return Prediction(_name(image), (task or self.task).label(found), tuple(found))

    def _masked(
        self, images: Iterable[Picture], task: Segmentation, *, batch_size: int, device: str
    ) -> Iterator[Prediction | Unreadable]:
        """Masks in the images' own sizes, and the share of each class."""
        place, spec = find_device(device), self.transform.spec
        self.network.to(place).eval()

        def prepare(image: Picture) -> tuple[np.ndarray, tuple[int, int]]:
            picture = to_image(image, spec.channels)
            return self.transform.keep(picture), (picture.height, picture.width)

        def rows(batch: list[tuple[np.ndarray, tuple[int, int]]]) -> list[np.ndarray]:
            outputs = self.network(self.transform.show([pixels for pixels, _ in batch], place)).float()
            sizes = (size for _, size in batch)
            return [task.masks(one[None], size)[0].cpu().numpy() for one, size in zip(outputs, sizes, strict=True)]

        for image, mask in streamed(images, prepare, rows, batch_size=batch_size):
            if isinstance(mask, DataError):
                yield self.told(image, mask)
            else:
                shares = np.bincount(mask.ravel(), minlength=len(self.classes)) / mask.size
                yield Prediction(_name(image), "", tuple(shares.tolist()), mask)

    def _stream(
        self, images: Iterable[Picture], rows: Callable[[Tensor], Sequence[_Row]], *, batch_size: int, device: str
    ) -> Iterator[tuple[Picture, _Row | DataError]]:
        place = find_device(device)
        self.network.to(place).eval()

        def prepare(image: Picture) -> np.ndarray:
            return self.transform.keep(to_image(image, self.transform.spec.channels))

        return streamed(images, prepare, lambda batch: rows(self.transform.show(batch, place)), batch_size=batch_size)


def _name(image: Picture) -> str:
    """Its path, of an image in memory nothing."""
    return str(image) if isinstance(image, str | Path) else ""


def load(path: str | Path) -> Model:
    """Rebuild the model of a finished run from its directory alone.

    Raises:
        RunError: the run is not finished, a file of it is missing or damaged, or it names what is no component of
            this package nor of a trusted module (:func:`headstart.config.foreign.trust`).
    """
    path = Path(path)
    result = read_result(path)
    if result.status != "done":
        raise RunError(f"{path} is not finished: {result.error}; run it again first")
    config = read_config(path)
    chosen = {group: foreign_component(config, group, path) for group in ("backbone", "head", "strategy")}
    check_file(path / CONFIG_FILE, result)
    try:
        spec = InputSpec.from_dict(result.details["input_spec"]).checked()
        classes = tuple(result.data["classes"])
        task = build_task(result.details["task"], classes, record=result.details.get("task_record"))
        seed, size = config["seed"], (spec.height, spec.width)
        backbone = build_backbone(chosen["backbone"], NO_WEIGHTS, seed=seed, image_size=size)
        network = TransferModel(backbone, build_head(chosen["head"], backbone, task, seed=seed))
        strategy, transform = chosen["strategy"].build(), EvalTransform(spec)
    except HeadstartError:
        raise
    except Exception as error:  # what a foreign directory holds may be anything
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise RunError(
            f"{path} says nothing that its model can be made of ({said}); copy the run directory again, or run it again"
        ) from error
    if not load_final(network, path / "checkpoints"):
        strategy.restore(network)
        load_weights(network, path / "checkpoints")
        strategy.merge(network)
    return Model(path, config, result, network.eval(), task, classes, transform)


def to_image(image: Picture, channels: int) -> Image.Image:
    """Any image as 8 bits of this many channels.

    Raises:
        DataError: it cannot be read, or its type, shape or range is not one that :data:`Picture` allows.
    """
    if isinstance(image, str | Path):
        return read_image(image, channels)
    if isinstance(image, Image.Image):
        return decode(image, channels)
    given = f"{type(image).__name__} {getattr(image, 'dtype', '')} {tuple(getattr(image, 'shape', ()))}"
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise DataError(f"{given} is no image; give a tensor (C, H, W), or (B, C, H, W) for several")
        if image.is_floating_point():
            if not (image.numel() and float(image.min()) >= 0 and float(image.max()) <= 1):
                raise DataError(f"{given} goes beyond 0 to 1; give pixels that are not normalised")
            image = (image * 255).round().to(torch.uint8)
        image = image.permute(1, 2, 0).cpu().numpy()
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise DataError(f"{given} is no image; give a path, a PIL image, an array (H, W, C) of uint8 or a tensor")
    if image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4):
        raise DataError(f"{given} has no 1 to 4 channels; give an array (H, W, C) or a tensor (C, H, W)")
    squeezed = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    return decode(Image.fromarray(np.ascontiguousarray(squeezed)), channels)


def find_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is a GPU where there is one.

    Raises:
        RunError: there is no such device here.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    kind = name.partition(":")[0]
    if not there.get(kind):
        usable = ", ".join(["auto", *(kind for kind, available in there.items() if available)])
        raise RunError(f"device={name}: there is no such device here; there are: {usable}")
    return torch.device(name)


def _is_single(images: Any) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim != 4
    return isinstance(images, str | Path | Image.Image)


def _listed(images: Any) -> Sequence[Picture]:
    return [images] if _is_single(images) else list(images)
