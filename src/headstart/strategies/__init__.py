"""Transfer strategies: what learns, when and how fast. One small file per family."""

from headstart.strategies.contract import (
    Group,
    ModelInfo,
    ParameterInfo,
    Phase,
    StageInfo,
    Step,
    Strategy,
    one_phase,
    stage_group,
)
from headstart.strategies.freeze import Freeze
from headstart.strategies.full import Full, Scratch

__all__ = [
    "Freeze",
    "Full",
    "Group",
    "ModelInfo",
    "ParameterInfo",
    "Phase",
    "Scratch",
    "StageInfo",
    "Step",
    "Strategy",
    "one_phase",
    "stage_group",
]
