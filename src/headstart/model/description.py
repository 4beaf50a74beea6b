"""A model as strategies see it: stages of named parameters. No torch here."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["weight", "bias", "norm"]


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter as a strategy sees it.

    Attributes:
        name: full name within the model (``backbone.layer1.0.conv1.weight``, ``head.linear.bias``).
        role: ``norm`` for every parameter of a normalisation layer, ``bias`` for other biases, else ``weight``.
        size: number of elements.
        decays: whether weight decay applies (not to biases, norms, and other vectors such as class tokens).
    """

    name: str
    role: Role
    size: int
    decays: bool


@dataclass(frozen=True)
class StageInfo:
    """One stage of the model: a stage of the backbone, or ``head`` last."""

    name: str
    parameters: tuple[ParameterInfo, ...]


@dataclass(frozen=True)
class ModelInfo:
    """The model as a strategy sees it: its stages from input to output. The last one is the head."""

    stages: tuple[StageInfo, ...]

    @property
    def backbone_stages(self) -> tuple[StageInfo, ...]:
        """All stages but the head."""
        return self.stages[:-1]

    @property
    def head(self) -> StageInfo:
        """The head."""
        return self.stages[-1]
