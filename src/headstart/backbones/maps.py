"""Maps of several stages as a backbone's features, for heads that answer for every pixel.

The maps of one image lie behind each other in one row, each at its own size: that is what is stored and handed to the
head, and nothing is enlarged before the head has made few channels of many.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from headstart.backbones.contract import Backbone, FeatureSpec, Layout
from headstart.backbones.trace import only_tensor, trace
from headstart.errors import ConfigError


@dataclass(frozen=True)
class StageMap:
    """The map that one stage ends in.

    Attributes:
        end: name of the module that returns it; empty: the features themselves.
        layout: as the module returns it.
        skip: tokens before those of the positions.
        size: ``(C, h, w)``.
    """

    end: str
    layout: Layout
    skip: int
    size: tuple[int, int, int]

    def row(self, output: Tensor) -> Tensor:
        """The module's output ``(B, ...)`` as ``(B, C * h * w)``, channels first."""
        if self.layout == "NLC":
            output = output[:, self.skip :].transpose(1, 2)
        elif self.layout == "NHWC":
            output = output.permute(0, 3, 1, 2)
        return output.flatten(1)


@dataclass(frozen=True)
class Gathered:
    """What ``backbone(images)`` gives in place of its own features: the maps of some stages, finest first."""

    maps: tuple[StageMap, ...]

    def __call__(self, backbone: Backbone, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` images to ``(B, sum of C * h * w)``."""
        seen: dict[str, Tensor] = {}

        def watch(end: str) -> Any:
            return backbone.get_submodule(end).register_forward_hook(
                lambda module, inputs, output: seen.update({end: only_tensor(output)})
            )

        handles = [watch(found.end) for found in self.maps if found.end]
        try:
            seen[""] = backbone.forward_features(images)
        finally:
            for handle in handles:
                handle.remove()
        if missing := [found.end for found in self.maps if found.end not in seen]:
            raise RuntimeError(f"{missing[0]} of {backbone.name} did not run")
        return torch.cat([found.row(seen[found.end]) for found in self.maps], dim=1)


def gather(backbone: Backbone, count: int) -> None:
    """From here on the backbone's features are the maps of its last ``count`` stages, or of all it has.

    Where a network halves its resolution, the last stage of each resolution counts; where all stages have the same,
    as in a transformer, each of them does. The last map is that of the backbone's own features.

    Raises:
        ConfigError: the backbone ends in one vector an image.
    """
    features, shape = backbone.features, backbone.input_spec.shape
    if features.layout == "NC":
        raise ConfigError(
            f"{backbone.name} ends in one vector an image, and task=segmentation needs a map; use "
            "backbone.pre_logits=drop, or another backbone"
        )
    last = _as_map("", features.shape, features.layout, features, shape)
    if last is None:
        raise ConfigError(
            f"{backbone.name}: features {features.shape} of {shape[1]}x{shape[2]} images have no rows and columns; "
            "choose another backbone for task=segmentation"
        )
    found = [*_of_stages(backbone)][-count:-1] if count > 1 else []
    maps = (*found, last)
    channels = sum(one.size[0] for one in maps)
    length = sum(one.size[0] * one.size[1] * one.size[2] for one in maps)
    backbone.gathered = Gathered(maps)
    backbone.features = FeatureSpec(channels, (length,), features.layout, maps=tuple(one.size for one in maps))


def _of_stages(backbone: Backbone) -> Iterator[StageMap]:
    """Of each stage that counts, in order."""
    features, shape = backbone.features, backbone.input_spec.shape
    calls = trace(backbone, lambda model, images: model.forward_features(images), shape).calls
    outputs = {call.module: only_tensor(call.output) for call in calls if call.ended is not None}
    stages = list(backbone.stages)
    parameters = dict(backbone.named_parameters())
    if len(stages) > 1 and all(parameters[name].ndim < 2 for name in stages[-1].parameters):
        stages.pop()  # a last norm, whose map is that of the stage before once more
    maps = []
    for stage in stages:
        output = outputs.get(stage.end) if stage.end else None
        size = () if output is None else tuple(output.sizes[1:])
        layout: Layout = "NLC" if len(size) == 2 else "NHWC" if features.layout == "NHWC" else "NCHW"
        one = _as_map(stage.end or "", size, layout, features, shape)
        if one is not None:
            maps.append(one)
    by_size = [list(group) for _, group in groupby(maps, key=lambda one: one.size[1:])]
    yield from maps if len(by_size) == 1 else (group[-1] for group in by_size)


def _as_map(
    end: str, size: Sequence[int], layout: Layout, features: FeatureSpec, shape: tuple[int, int, int]
) -> StageMap | None:
    """The map of an output of this size; None where it has no rows and columns."""
    if layout == "NLC" and len(size) == 2:
        for skip in dict.fromkeys((features.prefix_tokens, 0)):
            places = size[0] - skip
            rows = round((places * shape[1] / shape[2]) ** 0.5)
            if rows and places % rows == 0 and abs(rows / shape[1] - places / rows / shape[2]) * min(shape[1:]) < 1:
                return StageMap(end, layout, skip, (size[1], rows, places // rows))
    elif len(size) == 3:
        height, width, channels = size if layout == "NHWC" else (size[1], size[2], size[0])
        return StageMap(end, layout, 0, (channels, height, width))
    return None


def maps_of(features: Tensor, sizes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """``(B, sum of C * h * w)`` taken apart into ``(B, C, h, w)``."""
    rows = features.split([channels * height * width for channels, height, width in sizes], dim=1)
    return [row.unflatten(1, size) for row, size in zip(rows, sizes, strict=True)]
