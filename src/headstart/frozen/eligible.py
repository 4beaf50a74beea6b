"""Which runs can be trained together, and why the others cannot. No torch here: a sweep asks before anything starts."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from headstart.config import ResolvedRun, RunSettings
from headstart.config.closed_form import is_closed_form
from headstart.config.settings import TrainerSettings
from headstart.config.strategy import strategy_of

OPTIMIZERS = ("torch.optim.AdamW", "torch.optim.Adam", "torch.optim.SGD", "torch.optim.RMSprop")
PRECISIONS = ("32-true", "bf16-mixed")

# Lightning's switches that the heads' own loop follows, or that change nothing in it.
_FOLLOWED = (
    "accelerator",
    "benchmark",
    "deterministic",
    "devices",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "log_every_n_steps",
    "max_epochs",
    "num_nodes",
    "num_sanity_val_steps",
    "precision",
    "strategy",
    "sync_batchnorm",
)
# Values of the other switches that mean nothing out of the ordinary.
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "accumulate_grad_batches": (1,),
    "check_val_every_n_epoch": (1,),
    "detect_anomaly": (False,),
    "fast_dev_run": (False,),
    "limit_test_batches": (None, 1.0),
    "limit_train_batches": (None, 1.0),
    "limit_val_batches": (None, 1.0),
    "max_steps": (-1,),
    "max_time": (None,),
    "min_epochs": (None,),
    "overfit_batches": (0.0,),
    "profiler": (None,),
    "val_check_interval": (None, 1.0),
}
# What heads over the same images may differ in: which of them they train on, and in what order.
_OF_THE_HEAD = ("batch_size", "drop_last", "eval_batch_size", "fraction", "seed", "shots", "steps_per_epoch")


def obstacle(run: ResolvedRun) -> str | None:
    """Why a run must train alone, or None where its head can be trained together with others."""
    settings = run.settings
    if others := [name for name in settings.logger if name != "csv"]:
        return f"logger={others[0]} follows one run at a time"
    if settings.extend:
        return "extend=true goes on from an earlier run"
    return _of_the_strategy(run) or _of_the_features(settings) or _of_the_trainer(settings.trainer) or _of_the_head(run)


def shared_part(run: ResolvedRun) -> str:
    """What runs must have in common to be trained in one process: backbone, images, device and store."""
    settings, trainer = run.settings, run.settings.trainer
    images = settings.datamodule.without(*_OF_THE_HEAD)
    # Random weights are drawn from the seed.
    seed = settings.seed if run.weights.kind == "none" else None
    machine = (trainer.accelerator, trainer.devices, trainer.precision, trainer.channels_last)
    switches = {key: trainer.switches.get(key) for key in ("benchmark", "deterministic", "sync_batchnorm")}
    store = (asdict(settings.cache), settings.paths.cache_dir)
    parts = [asdict(settings.backbone), run.weights.sha256, seed, asdict(images), machine, switches, store]
    return json.dumps(parts, sort_keys=True, default=str)


def _of_the_strategy(run: ResolvedRun) -> str | None:
    settings, strategy = run.settings, strategy_of(run.config)
    if strategy is None or not strategy.only_head_learns:
        return f"strategy={run.choices.get('strategy', '?')} is not freeze: more than a head learns"
    if settings.head_epochs:
        return f"head_epochs={settings.head_epochs} makes phases"
    if settings.head_init != "default":
        return f"head_init={settings.head_init} looks at all images first"
    if settings.ema.decay is not None:
        return "ema.decay averages weights after every step"
    return None


def _of_the_features(settings: RunSettings) -> str | None:
    if settings.cache.mode == "off":
        return "cache=off"
    if settings.batch_transform.name != "none":
        return f"batch_transform={settings.batch_transform.name} mixes images"
    augment = settings.datamodule.arguments.get("augment", "none")
    if augment != "none" and not settings.cache.views:
        return f"datamodule.augment={augment} changes the images in every epoch (cache.views=0)"
    return None


def _of_the_trainer(trainer: TrainerSettings) -> str | None:
    if trainer.distributed:
        return "several processes train it"
    if trainer.strategy not in ("auto", "single_device"):
        return f"trainer.strategy={trainer.strategy}"
    if trainer.precision not in PRECISIONS:
        return f"trainer.precision={trainer.precision} is not one of {', '.join(PRECISIONS)}"
    for key, value in trainer.switches.items():
        usual = _USUAL.get(key, (None,))
        one_batch = type(value) is int and usual == (None, 1.0)  # 1 is one batch, and 1.0 are all of them
        if key not in _FOLLOWED and (one_batch or value not in usual):
            return f"trainer.{key}={value} is for Lightning's own loop"
    return None


def _of_the_head(run: ResolvedRun) -> str | None:
    if run.settings.task == "segmentation":
        return "task=segmentation has a target for every pixel"
    if is_closed_form(run.config):
        return f"head={run.choices.get('head', '?')} is solved for at once, without steps"
    if run.settings.optimizer.target not in OPTIMIZERS:
        names = ", ".join(name.rpartition(".")[2] for name in OPTIMIZERS)
        return f"optimizer={run.choices.get('optimizer', '?')} is not one of {names}"
    return None
