"""Several finished runs as one model, and the mirrored image beside the image: the mean of their probabilities."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headstart.data.input_spec import InputSpec
from headstart.errors import RunError
from headstart.execution.load import Model, Picture, find_device, to_image
from headstart.execution.predict import Prediction, Unreadable
from headstart.execution.streaming import streamed
from headstart.tasks import Segmentation, Task
from headstart.tasks.multilabel import Multilabel


@dataclass(frozen=True)
class Ensemble:
    """Models whose probabilities (of regression, whose values) are averaged; one is enough.

    Attributes:
        models: of one task and the same classes.
        flip: each network also sees the image mirrored left to right, and the mean of both counts.
    """

    models: Sequence[Model]
    flip: bool = False

    def __post_init__(self) -> None:
        first = self.models[0]
        if isinstance(first.task, Segmentation) and (self.flip or len(self.models) > 1):
            raise RunError("masks are predicted by one run, and without --tta; give one run")
        for other in self.models[1:]:
            if other.task.name != first.task.name:
                raise RunError(
                    f"{other.path} has task={other.task.name} and {first.path} task={first.task.name}; give runs of "
                    "one task"
                )
            if other.classes != first.classes:
                raise RunError(
                    f"{other.path} knows {', '.join(other.classes[:5])} and {first.path} {', '.join(first.classes[:5])}"
                    f" ({len(other.classes)} and {len(first.classes)} classes); give runs of the same classes"
                )

    @cached_property
    def task(self) -> Task:
        """Of all; a label is given from the mean of their thresholds on."""
        joint = copy.copy(self.models[0].task)
        if isinstance(joint, Multilabel):
            thresholds = [model.task.thresholds for model in self.models if isinstance(model.task, Multilabel)]
            joint.thresholds = tuple(np.mean(thresholds, axis=0).tolist())
        return joint

    @property
    def classes(self) -> tuple[str, ...]:
        """Of all, in the order of the probabilities."""
        return self.models[0].classes

    def stream(
        self, images: Iterable[Picture], *, batch_size: int = 32, device: str = "auto"
    ) -> Iterator[Prediction | Unreadable]:
        """As :meth:`headstart.execution.load.Model.stream`; each file is read once for all models."""
        if isinstance(self.task, Segmentation):
            yield from self.models[0].stream(images, batch_size=batch_size, device=device)
            return
        place = find_device(device)
        for model in self.models:
            model.network.to(place).eval()
        specs = [model.transform.spec for model in self.models]

        def prepare(image: Picture) -> dict[InputSpec, np.ndarray]:
            decoded: dict[int, Image.Image] = {}
            found: dict[InputSpec, np.ndarray] = {}
            for model, spec in zip(self.models, specs, strict=True):
                if spec not in found:
                    if spec.channels not in decoded:
                        decoded[spec.channels] = to_image(image, spec.channels)
                    found[spec] = model.transform.keep(decoded[spec.channels])
            return found

        def rows(batch: list[dict[InputSpec, np.ndarray]]) -> list[list[float]]:
            transforms = {model.transform.spec: model.transform for model in self.models}
            pixels = {spec: one.show([item[spec] for item in batch], place) for spec, one in transforms.items()}
            means = [self._of(model, pixels[spec]) for model, spec in zip(self.models, specs, strict=True)]
            probabilities: list[list[float]] = torch.stack(means).mean(dim=0).tolist()
            return probabilities

        for image, outcome in streamed(images, prepare, rows, batch_size=batch_size):
            yield self.models[0].told(image, outcome, self.task)

    def _of(self, model: Model, pixels: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, classes)`` on the CPU."""
        found = model.probabilities(pixels)
        return (found + model.probabilities(pixels.flip(-1))) / 2 if self.flip else found
