"""Transfer strategies: what learns, when and how fast. One small file per family."""

from headstart.model.description import ModelInfo, ParameterInfo, StageInfo
from headstart.model.phases import Group, Phase, one_phase, stage_group
from headstart.strategies.bss import BSS
from headstart.strategies.contract import Extras, OtherRun, OtherTask, Step, Strategy, Surroundings
from headstart.strategies.cotuning import CoTuning
from headstart.strategies.delta import Delta
from headstart.strategies.distill import Distill
from headstart.strategies.freeze import Freeze
from headstart.strategies.full import Full, Scratch
from headstart.strategies.gradual import Gradual
from headstart.strategies.l2sp import L2SP
from headstart.strategies.layerwise import Layerwise
from headstart.strategies.lora import LoRA
from headstart.strategies.lp_ft import LpFt
from headstart.strategies.partial import Partial
from headstart.strategies.selected import BitFit, NormOnly
from headstart.strategies.share import Share
from headstart.strategies.wise_ft import WiseFt

__all__ = [
    "BSS",
    "L2SP",
    "BitFit",
    "CoTuning",
    "Delta",
    "Distill",
    "Extras",
    "Freeze",
    "Full",
    "Gradual",
    "Group",
    "Layerwise",
    "LoRA",
    "LpFt",
    "ModelInfo",
    "NormOnly",
    "OtherRun",
    "OtherTask",
    "ParameterInfo",
    "Partial",
    "Phase",
    "Scratch",
    "Share",
    "StageInfo",
    "Step",
    "Strategy",
    "Surroundings",
    "WiseFt",
    "one_phase",
    "stage_group",
]
