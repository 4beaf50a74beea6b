"""Transfer strategies: what learns, when and how fast. One small file per family."""

from headstart.strategies.bss import BSS
from headstart.strategies.contract import (
    Group,
    ModelInfo,
    OtherRun,
    OtherTask,
    ParameterInfo,
    Phase,
    StageInfo,
    Step,
    Strategy,
    Surroundings,
    one_phase,
    stage_group,
)
from headstart.strategies.delta import Delta
from headstart.strategies.freeze import Freeze
from headstart.strategies.full import Full, Scratch
from headstart.strategies.gradual import Gradual
from headstart.strategies.l2sp import L2SP
from headstart.strategies.layerwise import Layerwise
from headstart.strategies.lp_ft import LpFt
from headstart.strategies.partial import Partial
from headstart.strategies.selected import BitFit, NormOnly

__all__ = [
    "BSS",
    "L2SP",
    "BitFit",
    "Delta",
    "Freeze",
    "Full",
    "Gradual",
    "Group",
    "Layerwise",
    "LpFt",
    "ModelInfo",
    "NormOnly",
    "OtherRun",
    "OtherTask",
    "ParameterInfo",
    "Partial",
    "Phase",
    "Scratch",
    "StageInfo",
    "Step",
    "Strategy",
    "Surroundings",
    "one_phase",
    "stage_group",
]
