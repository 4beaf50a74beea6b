"""The one table of what a configuration may hold; what a component takes is said by the signature of its class."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_origin, get_type_hints

from headstart.config.settings import Component, Flag, Part, RunSettings, Share
from headstart.config.signature import Signature, signature
from headstart.system.options import (
    Above,
    AtLeast,
    AtMost,
    Below,
    Count,
    NotInResult,
    Pattern,
    Positive,
    StepsOnly,
    marks,
)

_Batches = Count | Annotated[float, AtLeast(0), AtMost(1)]
_SomeBatches = Positive | Annotated[float, Above(0), AtMost(1)]


def _keys(section: type[Part], prefix: str = "") -> dict[str, Any]:
    """What each key of a section may be, by its dotted name, but for what classes and loggers take."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(section, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, Part):
            found |= _keys(hint, f"{prefix}{name}.")
        elif hint is not Component and get_origin(hint) is not Mapping:
            found[f"{prefix}{name}"] = hint
    return found


# Before they are decided these may be more than a run's settings hold.
_UNDECIDED: dict[str, Any] = {
    "trainer.accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
    "trainer.devices": Literal["auto", -1]
    | Positive
    | Annotated[list[int], AtLeast(0)]
    | Annotated[str, Pattern(r"-1|[1-9]\d*|( *\d+ *,)+( *\d+ *)?", "is such a number or list")],
    # What is frozen, stored or of another run is in single precision, and a network in another would not go with it.
    "trainer.precision": Literal["auto", "32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", 16, 32],
    "batchnorm": Literal["auto", "train", "eval", "affine"],
    "cache.views": Annotated[Literal["auto"] | Count, StepsOnly(0)],
    "paths.cache_dir": str | None,
    "paths.data_dir": str | None,
}

# Of the command and of studies. What is in sources is checked as the components that it holds.
_OF_COMMANDS: dict[str, Any] = {
    "debug": Flag,
    "sources": dict,
    "study.primary": str | None,
    "study.budget": Literal["trials", "seconds"],
    "study.trials": Positive,
    "study.seconds": Annotated[float, Above(0)],
    "study.tuning.space": dict,
    "study.tuned": list[str],
}

# What code reads of a component, and what the classes of other packages take.
_COMPONENTS: dict[str, Any] = {
    "backbone.name": str,
    "backbone.weights": str,
    "datamodule.data_dir": Annotated[str | None, NotInResult],
    "optimizer.lr": Annotated[float, Above(0)],
    "optimizer.weight_decay": Annotated[float, AtLeast(0)],
    "optimizer.momentum": Share,
    "optimizer.betas": Annotated[tuple[float, float], AtLeast(0), Below(1)],
    "optimizer.eps": Annotated[float, AtLeast(0)],
    "optimizer.alpha": Annotated[float, AtLeast(0), AtMost(1)],
    "optimizer.nesterov": bool,
}

_SCHEDULER: dict[str, Any] = {
    "scheduler.name": Literal["none", "cosine", "step", "plateau"],
    "scheduler.warmup_epochs": Annotated[float, AtLeast(0)],
    "scheduler.min_factor": Share,
    "scheduler.step_epochs": Positive,
    "scheduler.gamma": Annotated[float, Above(0), AtMost(1)],
    "scheduler.patience": Count,
}

# Switches that only Lightning's trainer reads.
_LIGHTNING: dict[str, Any] = {
    "trainer.accumulate_grad_batches": Annotated[Positive, StepsOnly(1)],
    "trainer.min_epochs": Annotated[Positive | None, StepsOnly(None)],
    "trainer.max_steps": Annotated[Literal[-1] | Positive, StepsOnly(-1)],
    "trainer.max_time": Annotated[
        Annotated[str, Pattern(r"\s*\d+(:\d\d){3}\s*", "is days:hours:minutes:seconds, such as 00:01:30:00")]
        | dict
        | None,
        StepsOnly(None),
    ],
    "trainer.check_val_every_n_epoch": Annotated[Positive, StepsOnly(1)],
    "trainer.val_check_interval": Annotated[Positive | Annotated[float, Above(0), AtMost(1)] | None, StepsOnly(None)],
    "trainer.num_sanity_val_steps": Annotated[int | None, AtLeast(-1), StepsOnly(0, harmless=True)],
    "trainer.log_every_n_steps": Annotated[Count | None, NotInResult],
    "trainer.sync_batchnorm": bool,
    "trainer.deterministic": bool | Literal["warn"],
    "trainer.benchmark": bool | None,
    "trainer.fast_dev_run": bool | Count,
    "trainer.overfit_batches": _Batches,
    "trainer.limit_train_batches": _SomeBatches | None,
    "trainer.limit_val_batches": _SomeBatches | None,
    "trainer.limit_test_batches": _Batches | None,
    "trainer.profiler": Annotated[Literal["simple", "advanced", "pytorch"] | None, NotInResult],
    "trainer.detect_anomaly": bool,
}

_LOGGERS: dict[str, Any] = {
    "logger.csv": dict,
    "logger.tensorboard": dict,
    "logger.wandb.project": Annotated[
        str, Pattern(r"[^/\\#?%:]{1,128}", "Weights & Biases takes: up to 128 characters and no / \\ # ? % :")
    ],
    "logger.wandb.entity": str | None,
    "logger.wandb.group": str | None,
    "logger.wandb.tags": list[str],
    "logger.wandb.notes": str | None,
    "logger.wandb.mode": Literal["auto", "online", "offline", "disabled"],
    "logger.wandb.log_model": bool,
    "logger.mlflow.tracking_uri": str | None,
    "logger.mlflow.experiment_name": str | None,
}

# What these groups hold is passed on to a class.
COMPONENTS = frozenset({"backbone", "head", "strategy", "datamodule", "optimizer"})

# Lightning's further switches, which may be added with +; the rest is set by the code.
LIGHTNING_SWITCHES: dict[str, Any] = {
    "trainer.min_steps": Positive | None,
    "trainer.limit_predict_batches": _Batches | None,
    "trainer.reload_dataloaders_every_n_epochs": Count,
    "trainer.inference_mode": bool,
}

# Keys of earlier versions: what to do instead.
REMOVED = {"callbacks.lr_monitor": "learning rates are always logged, leave it out"}

SPEC: dict[str, Any] = {
    **_keys(RunSettings),
    **_UNDECIDED,
    **_OF_COMMANDS,
    **_COMPONENTS,
    **_SCHEDULER,
    **_LIGHTNING,
    **_LOGGERS,
    **LIGHTNING_SWITCHES,
}

# Groups that change no result, whatever they hold.
_PLACES = ("logger", "paths", "study")
# What stands for a class that cannot be read.
_USUAL = {"backbone": "headstart.backbones.TimmBackbone", "datamodule": "headstart.data.ImageDataModule"}


def components(config: Mapping[str, Any]) -> dict[str, Signature | None]:
    """What each component of a plain configuration takes, those of further tasks included, by its dotted key."""
    chosen = {group: config[group] for group in sorted(COMPONENTS) if group in config}
    for name, source in (config.get("sources") or {}).items():
        if isinstance(source, Mapping) and "datamodule" in source:
            chosen[f"sources.{name}.datamodule"] = source["datamodule"]
    return {
        key: signature(str(choice.get("_target_")) if isinstance(choice, Mapping) else "")
        for key, choice in chosen.items()
    }


def marked(kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys of a plain configuration whose annotation has a mark, with it."""
    table = {key: found[0] for key, hint in SPEC.items() if (found := marks(hint, kind))}
    usual = {group: signature(target) for group, target in _USUAL.items()}
    for prefix, takes in {**usual, **components(config)}.items():
        takes = takes or usual.get(prefix.rpartition(".")[2])
        table |= {f"{prefix}.{name}": mark for name, mark in takes.marked(kind).items()} if takes else {}
        table |= {
            f"{prefix}.{key.partition('.')[2]}": mark
            for key, mark in [*table.items()]
            if prefix.startswith("sources.") and key.startswith("datamodule.") and key in SPEC
        }
    return table


def not_in_result(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted keys, and beginnings of keys, that may differ between runs with the same result."""
    return (*_PLACES, *sorted(marked(NotInResult, config)))
