"""The one table of what a configuration may hold; what a component takes is said by the signature of its class."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from headstart.config.signature import Signature, signature
from headstart.system.options import Above, AtLeast, AtMost, Below, NotInResult, Pattern, StepsOnly, marks

Positive = Annotated[int, AtLeast(1)]
Count = Annotated[int, AtLeast(0)]
Share = Annotated[float, AtLeast(0), Below(1)]
_Batches = Count | Annotated[float, AtLeast(0), AtMost(1)]
_SomeBatches = Positive | Annotated[float, Above(0), AtMost(1)]
_Flag = Annotated[bool, NotInResult]

_TOP: dict[str, Any] = {
    "name": Annotated[
        str,
        Pattern(
            r'(?!\.{1,2}$)[^/\\:*?"<>|\n]{1,200}', 'can name a folder (up to 200 characters, no / \\ : * ? " < > |)'
        ),
        NotInResult,
    ],
    "seed": Count,
    "task": Literal["auto", "binary", "multiclass", "multilabel", "regression"],
    "loss.label_smoothing": Share,
    "loss.class_weights": Literal["none", "balanced"] | Annotated[list[float], AtLeast(0)],
    "debug": _Flag,
    "rerun": Annotated[Literal["failed", "all", "none"], NotInResult],
    "extend": _Flag,
    "plan": _Flag,
    "export": _Flag,
    "batchnorm": Literal["train", "eval", "affine"],
    "ema.decay": Annotated[float, Above(0), Below(1)] | None,
    "head_init": Literal["default", "class_means", "probe", "source"],
    "head_epochs": Count,
    "batch_transform.name": Literal["none", "mixup", "cutmix"],
    "batch_transform.alpha": Annotated[float, Above(0)],
    "sources": dict,
    "study.primary": str | None,
    "study.budget": Literal["trials", "seconds"],
    "study.trials": Positive,
    "study.seconds": Annotated[float, Above(0)],
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

_TRAINER: dict[str, Any] = {
    "trainer.max_epochs": Annotated[Positive, StepsOnly(1, harmless=True)],
    "trainer.accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
    "trainer.devices": Literal["auto", -1]
    | Positive
    | Annotated[list[int], AtLeast(0)]
    | Annotated[str, Pattern(r"-1|[1-9]\d*|( *\d+ *,)+( *\d+ *)?", "is such a number or list")],
    "trainer.num_nodes": Positive,
    "trainer.strategy": Annotated[
        str,
        Pattern(
            r"auto|(ddp(_spawn|_fork|_notebook)?(_find_unused_parameters_(true|false))?|deepspeed(_stage_[123])?"
            r"(_offload(_nvme)?)?|fsdp(_cpu_offload)?|single_device)",
            "names a strategy of Lightning: auto, ddp, ddp_spawn, fsdp, deepspeed, single_device and their variants",
        ),
    ],
    "trainer.precision": Literal["auto", "32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", "64-true", "64"]
    | Literal["bf16-true", "16-true", 16, 32, 64],
    "trainer.channels_last": Literal["auto"] | bool,
    "trainer.compile": Annotated[bool, StepsOnly(False)],
    "trainer.gradient_clip_val": Annotated[float | None, Above(0), StepsOnly(None)],
    "trainer.gradient_clip_algorithm": Literal["norm", "value"] | None,
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

_OUTPUT: dict[str, Any] = {
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
    "callbacks.early_stopping.enabled": bool,
    "callbacks.early_stopping.patience": Positive,
    "callbacks.early_stopping.min_delta": Annotated[float, AtLeast(0)],
    "callbacks.checkpoint.every_n_epochs": Annotated[Positive, NotInResult],
    "callbacks.progress": Annotated[Literal["auto", "rich", "plain", "none"], NotInResult],
    "callbacks.plots": _Flag,
    # Stored activations give the same results within a tolerance that a test holds.
    "cache.mode": Annotated[Literal["auto", "off", "require", "images"], NotInResult],
    "cache.dtype": Literal["run", "half"],
    "cache.views": Annotated[Literal["auto"] | Count, StepsOnly(0)],
    "cache.images": Annotated[Literal["auto", "off"], NotInResult],
    "cache.max_gb": Annotated[float | None, Above(0), NotInResult],
    "paths.output_dir": str,
    "paths.cache_dir": str | None,
    "paths.data_dir": str | None,
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

SPEC: dict[str, Any] = {**_TOP, **_COMPONENTS, **_SCHEDULER, **_TRAINER, **_OUTPUT, **LIGHTNING_SWITCHES}

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
