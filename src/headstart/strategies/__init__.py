"""Transfer strategies: what learns, when and how fast. One small file per family, read when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headstart.model.description import ModelInfo, ParameterInfo, StageInfo
from headstart.model.phases import Group, Phase, one_phase, stage_group
from headstart.strategies.contract import Extras, OtherRun, OtherTask, Step, Strategy, Surroundings

if TYPE_CHECKING:
    from headstart.strategies.bss import BSS
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

_HOMES = {
    "BSS": "bss",
    "BitFit": "selected",
    "CoTuning": "cotuning",
    "Delta": "delta",
    "Distill": "distill",
    "Freeze": "freeze",
    "Full": "full",
    "Gradual": "gradual",
    "L2SP": "l2sp",
    "Layerwise": "layerwise",
    "LoRA": "lora",
    "LpFt": "lp_ft",
    "NormOnly": "selected",
    "Partial": "partial",
    "Scratch": "full",
    "Share": "share",
    "WiseFt": "wise_ft",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"headstart.strategies.{_HOMES[name]}"), name)
