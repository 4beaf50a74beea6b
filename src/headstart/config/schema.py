"""The typed schema: what each key of a configuration may hold.

Keys that are not listed are parameters of a component (a head, a dataset, a user's own backbone). Their YAML
file is their schema: a value must be of the kind that stands there, and a strategy's must fit its annotations.
"""

from headstart.config.fields import (
    Field,
    flag,
    list_of,
    mapping,
    nothing,
    number,
    one_of,
    text,
    whole,
)

_BATCHES = whole(0) | number(minimum=0, maximum=1)
_AUTO = one_of("auto")

_TOP: dict[str, Field] = {
    "name": Field(
        lambda v: isinstance(v, str) and v not in {"", ".", ".."} and not set(v) & set('/\\:*?"<>|\n'),
        'a text that can name a folder (no / \\ : * ? " < > |)',
    ),
    "seed": whole(0),
    "task": one_of("auto", "binary", "multiclass", "multilabel", "regression"),
    "loss.label_smoothing": number(minimum=0, below=1),
    "loss.class_weights": one_of("none", "balanced") | list_of(number(minimum=0)),
    "debug": flag(),
    "rerun": one_of("failed", "all", "none"),
    "extend": flag(),
    "plan": flag(),
    "export": flag(),
    "batchnorm": one_of("train", "eval", "affine"),
    "ema.decay": nothing() | number(above=0, below=1),
    "head_init": one_of("default", "class_means", "probe", "source"),
    "head_epochs": whole(0),
    "batch_transform.name": one_of("none", "mixup", "cutmix"),
    "batch_transform.alpha": number(above=0),
    "sources": mapping(),
    "study.primary": text() | nothing(),
    "study.budget": one_of("trials", "seconds"),
    "study.trials": whole(1),
    "study.seconds": number(above=0),
}

_BACKBONE: dict[str, Field] = {
    "backbone._target_": text(),
    "backbone.name": text(),
    "backbone.weights": text(),
    "backbone.in_channels": whole(1),
    "backbone.pre_logits": one_of("drop", "keep"),
    "backbone.allow_unexpected": list_of(text()),
}

_HEAD: dict[str, Field] = {
    "head._target_": text(),
    "head.hidden": list_of(whole(1)),
    "head.dropout": number(minimum=0, below=1),
    "head.l2": nothing() | number(above=0) | list_of(number(above=0)),
    "head.max_iterations": whole(1),
    "head.k": whole(1) | list_of(whole(1)),
    "head.weighting": one_of("similarity", "equal"),
    "head.temperature": number(above=0),
    "head.metric": one_of("cosine", "euclidean"),
    "head.refit": flag(),
}

_DATA: dict[str, Field] = {
    "datamodule._target_": text(),
    "datamodule.root": text() | nothing(),
    "datamodule.batch_size": whole(1),
    "datamodule.eval_batch_size": whole(1) | nothing(),
    "datamodule.image_size": nothing() | whole(1) | list_of(whole(1), length=2),
    "datamodule.augment": text(),
    "datamodule.shear_range": nothing() | number(minimum=0, below=90),
    "datamodule.zoom_range": nothing() | number(minimum=0, below=1),
    "datamodule.train_size": nothing() | whole(8) | list_of(whole(8), length=2),
    "datamodule.kept_size": nothing() | whole(8),
    "datamodule.classes": nothing() | list_of(text() | whole(0)),
    "datamodule.manifest": text() | nothing(),
    "datamodule.target_columns": nothing() | list_of(text()),
    "datamodule.steps_per_epoch": nothing() | whole(1),
    "datamodule.val_steps": nothing() | whole(1),
    "datamodule.val_fraction": number(minimum=0, below=1),
    "datamodule.test_fraction": number(minimum=0, below=1),
    "datamodule.shots": nothing() | whole(1),
    "datamodule.fraction": nothing() | number(above=0, maximum=1),
    "datamodule.split_seed": whole(0),
    "datamodule.seed": whole(0),
    "datamodule.num_workers": _AUTO | whole(0),
    "datamodule.pin_memory": _AUTO | flag(),
    "datamodule.on_bad_image": one_of("skip", "raise"),
    "datamodule.drop_last": flag(),
    "datamodule.extensions": nothing() | list_of(text()),
}

_OPTIMIZER: dict[str, Field] = {
    "optimizer._target_": text(),
    "optimizer.lr": number(above=0),
    "optimizer.weight_decay": number(minimum=0),
    "optimizer.momentum": number(minimum=0, below=1),
    "optimizer.betas": list_of(number(minimum=0, below=1), length=2),
    "optimizer.eps": number(minimum=0),
    "optimizer.alpha": number(minimum=0, maximum=1),
    "optimizer.nesterov": flag(),
}

_SCHEDULER: dict[str, Field] = {
    "scheduler.name": one_of("none", "cosine", "step", "plateau"),
    "scheduler.warmup_epochs": number(minimum=0),
    "scheduler.min_factor": number(minimum=0, below=1),
    "scheduler.step_epochs": whole(1),
    "scheduler.gamma": number(above=0, maximum=1),
    "scheduler.patience": whole(0),
}

_TRAINER: dict[str, Field] = {
    "trainer.max_epochs": whole(1),
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.devices": _AUTO | whole(1) | list_of(whole(0)) | Field(lambda v: v == -1, "-1 for all") | text(),
    "trainer.num_nodes": whole(1),
    "trainer.strategy": text(),
    "trainer.precision": one_of(
        "auto", "32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", "64-true", "64", "bf16-true", "16-true"
    )
    | Field(lambda v: v in (16, 32, 64) and not isinstance(v, bool), "16, 32, 64"),
    "trainer.channels_last": _AUTO | flag(),
    "trainer.compile": flag(),
    "trainer.gradient_clip_val": nothing() | number(above=0),
    "trainer.gradient_clip_algorithm": one_of("norm", "value") | nothing(),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.min_epochs": nothing() | whole(1),
    "trainer.max_steps": whole(-1),
    "trainer.max_time": nothing() | text() | mapping(),
    "trainer.check_val_every_n_epoch": whole(1),
    "trainer.val_check_interval": nothing() | whole(1) | number(above=0, maximum=1),
    "trainer.num_sanity_val_steps": nothing() | whole(-1),
    "trainer.log_every_n_steps": nothing() | whole(0),
    "trainer.sync_batchnorm": flag(),
    "trainer.deterministic": flag() | one_of("warn"),
    "trainer.benchmark": flag() | nothing(),
    "trainer.fast_dev_run": flag() | whole(0),
    "trainer.overfit_batches": _BATCHES,
    "trainer.limit_train_batches": nothing() | _BATCHES,
    "trainer.limit_val_batches": nothing() | _BATCHES,
    "trainer.limit_test_batches": nothing() | _BATCHES,
    "trainer.profiler": nothing() | one_of("simple", "advanced", "pytorch"),
    "trainer.detect_anomaly": flag(),
}

_OUTPUT: dict[str, Field] = {
    "logger.csv": mapping(),
    "logger.tensorboard": mapping(),
    "logger.wandb.project": text(),
    "logger.wandb.entity": text() | nothing(),
    "logger.wandb.group": text() | nothing(),
    "logger.wandb.tags": list_of(text()),
    "logger.wandb.notes": text() | nothing(),
    "logger.wandb.mode": one_of("auto", "online", "offline", "disabled"),
    "logger.wandb.log_model": flag(),
    "logger.mlflow.tracking_uri": text() | nothing(),
    "logger.mlflow.experiment_name": text() | nothing(),
    "callbacks.early_stopping.enabled": flag(),
    "callbacks.early_stopping.patience": whole(1),
    "callbacks.early_stopping.min_delta": number(minimum=0),
    "callbacks.checkpoint.every_n_epochs": whole(1),
    "callbacks.progress": one_of("auto", "rich", "plain", "none"),
    "callbacks.plots": flag(),
    "cache.mode": one_of("auto", "off", "require", "images"),
    "cache.dtype": one_of("run", "half"),
    "cache.views": whole(0),
    "cache.images": one_of("auto", "off"),
    "cache.max_gb": number(above=0) | nothing(),
    "paths.output_dir": text(),
    "paths.cache_dir": text() | nothing(),
    "paths.data_dir": text() | nothing(),
}

# What these groups hold is passed on to a class; a key that their YAML does not list may be added with +.
COMPONENTS = frozenset({"backbone", "head", "strategy", "datamodule", "optimizer"})

# Lightning's further switches, which may be added with +; the rest is set by the code.
LIGHTNING_SWITCHES: dict[str, Field] = {
    "trainer.min_steps": nothing() | whole(1),
    "trainer.limit_predict_batches": nothing() | _BATCHES,
    "trainer.reload_dataloaders_every_n_epochs": whole(0),
    "trainer.inference_mode": flag(),
}

# Keys of earlier versions: what to do instead.
REMOVED = {"callbacks.lr_monitor": "learning rates are always logged, leave it out"}

SPEC: dict[str, Field] = {
    **_TOP,
    **_BACKBONE,
    **_HEAD,
    **_DATA,
    **_OPTIMIZER,
    **_SCHEDULER,
    **_TRAINER,
    **_OUTPUT,
    **LIGHTNING_SWITCHES,
}
