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
from headstart.strategies.gradual import Gradual
from headstart.strategies.layerwise import Layerwise
from headstart.strategies.lp_ft import LpFt
from headstart.strategies.partial import Partial
from headstart.strategies.selected import BitFit, NormOnly

__all__ = [
    "BitFit",
    "Freeze",
    "Full",
    "Gradual",
    "Group",
    "Layerwise",
    "LpFt",
    "ModelInfo",
    "NormOnly",
    "ParameterInfo",
    "Partial",
    "Phase",
    "Scratch",
    "StageInfo",
    "Step",
    "Strategy",
    "one_phase",
    "stage_group",
]
