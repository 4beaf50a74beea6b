"""Choices that are right one by one and impossible together: one small function each."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from headstart.config.closed_form import closed_form_fits
from headstart.errors import ConfigError
from headstart.strategies import Strategy

# Known without reading any data; of other data sets the task itself checks the classes.
_CLASSES = {"headstart.data.Digits": 10, "headstart.data.CIFAR10": 10, "headstart.data.Flowers102": 102}
_PARTS_OF_TIME = ("weeks", "days", "hours", "minutes", "seconds")
_SEPARATE_PROCESSES = ("ddp", "fsdp", "deepspeed")


@dataclass(frozen=True)
class Choices:
    """What the rules look at.

    Attributes:
        values: dotted keys and values.
        defaults: the YAML files' own values for the chosen groups.
        strategy: asked for its attributes, never for its name; None: it cannot be imported yet.
        sweep: the run is one of several that one command started.
        given: keys that the user gave a value, as opposed to an experiment; None: not known.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    strategy: Strategy | None
    sweep: bool = False
    given: Collection[str] | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key."""
        return self.values.get(key, default)


Rule = Callable[[Choices], str | None]


def scratch_has_no_weights(c: Choices) -> str | None:
    """Training from scratch replaces the weights."""
    weights = c.get("backbone.weights", "auto")
    if c.given is not None and "backbone.weights" not in c.given:
        return None  # of an experiment that compares with training from scratch: their preprocessing is taken
    if c.strategy is None or not c.strategy.starts_from_random_weights:
        return None
    if weights in {"auto", "none"} or weights == c.defaults.get("backbone.weights"):
        return None
    return f"backbone.weights={weights} has no effect with a strategy that trains from random weights; leave it out"


def shots_or_fraction(c: Choices) -> str | None:
    """Two ways to shrink the training split exclude each other."""
    shots, fraction = c.get("datamodule.shots"), c.get("datamodule.fraction")
    if shots is None or fraction is None:
        return None
    return (
        f"datamodule.shots={shots} and datamodule.fraction={fraction} both shrink the training split; give one of them"
    )


def splits_leave_training_data(c: Choices) -> str | None:
    """Validation and test must leave something to train on."""
    val, test = c.get("datamodule.val_fraction", 0), c.get("datamodule.test_fraction", 0) or 0
    if (val or 0) + test < 1:
        return None
    return f"datamodule.val_fraction={val} and datamodule.test_fraction={test} leave nothing to train on; lower them"


def warmup_fits(c: Choices) -> str | None:
    """The warm-up must end."""
    warmup, epochs = c.get("scheduler.warmup_epochs", 0), c.get("trainer.max_epochs")
    if epochs is None or warmup <= epochs:
        return None
    return f"scheduler.warmup_epochs={warmup} exceeds trainer.max_epochs={epochs}; lower it or train longer"


def min_epochs_fit(c: Choices) -> str | None:
    """The least number of epochs is not above the most."""
    least, most = c.get("trainer.min_epochs"), c.get("trainer.max_epochs")
    if least is None or least <= most:
        return None
    return f"trainer.min_epochs={least} exceeds trainer.max_epochs={most}; lower it or train longer"


def max_time_is_a_time(c: Choices) -> str | None:
    """Given part by part, a time has parts that there are, and some length."""
    parts = {key.rpartition(".")[2]: value for key, value in c.values.items() if key.startswith("trainer.max_time.")}
    wrong = next((name for name in parts if name not in _PARTS_OF_TIME), None)
    if wrong is not None:
        return f"trainer.max_time has no {wrong}; it takes {', '.join(_PARTS_OF_TIME)}, such as {{hours: 1}}"
    numbers = [value for value in parts.values() if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(parts) or (parts and not (min(numbers) >= 0 and 0 < sum(numbers) < float("inf"))):
        given = ", ".join(f"{name}: {value}" for name, value in parts.items())
        return f"trainer.max_time={{{given}}}: must be numbers of at least 0 that are not all 0, such as {{hours: 1}}"
    return None


def plateau_sees_every_epoch(c: Choices) -> str | None:
    """The schedule steps once an epoch, on that epoch's validation."""
    every = c.get("trainer.check_val_every_n_epoch", 1)
    if c.get("scheduler.name") != "plateau" or every == 1:
        return None
    return (
        f"scheduler=plateau follows the validation of every epoch, and trainer.check_val_every_n_epoch={every} skips "
        "some; set it to 1, or use scheduler=cosine"
    )


def early_stopping_can_stop(c: Choices) -> str | None:
    """A patience as long as the training never ends it."""
    if not c.get("callbacks.early_stopping.enabled"):
        return None
    patience, epochs = c.get("callbacks.early_stopping.patience"), c.get("trainer.max_epochs")
    if patience < epochs:
        return None
    return (
        f"callbacks.early_stopping.patience={patience} can never stop a training of trainer.max_epochs={epochs}; "
        "lower the patience, train longer, or leave early stopping off"
    )


def binary_has_two_classes(c: Choices) -> str | None:
    """One sigmoid output tells two classes apart."""
    classes = _known_classes(c)
    if c.get("task") != "binary" or classes in {None, 2}:
        return None
    return f"task=binary needs two classes, and this data set has {classes}; use task=multiclass or task=auto"


def class_weights_fit(c: Choices) -> str | None:
    """One weight a class."""
    weights, classes = c.get("loss.class_weights"), _known_classes(c)
    if not isinstance(weights, list) or classes is None or len(weights) == classes:
        return None
    return f"loss.class_weights has {len(weights)} numbers for {classes} classes; give {classes}, or balanced"


def _known_classes(c: Choices) -> int | None:
    """Number of classes where it is known without reading any data."""
    chosen = c.get("datamodule.classes")
    return len(chosen) if chosen else _CLASSES.get(str(c.get("datamodule._target_")))


def nesterov_has_momentum(c: Choices) -> str | None:
    """Nesterov's method is a kind of momentum."""
    if not c.get("optimizer.nesterov") or c.get("optimizer.momentum"):
        return None
    return "optimizer.nesterov=true needs optimizer.momentum above 0; set it to 0.9, or nesterov to false"


def precision_fits(c: Choices) -> str | None:
    """Half precision on the CPU is bfloat16; Apple GPUs have no double precision."""
    accelerator, precision = c.get("trainer.accelerator"), str(c.get("trainer.precision"))
    if accelerator == "cpu" and precision in {"16", "16-mixed", "16-true"}:
        return f"trainer.precision={precision} does not run on the CPU; use bf16-mixed or 32-true"
    if accelerator == "mps" and precision in {"64", "64-true"}:
        return f"trainer.precision={precision} does not run on an Apple GPU; use 32-true, or trainer=cpu"
    return None


def sync_batchnorm_needs_gpus(c: Choices) -> str | None:
    """BatchNorm is synchronised between GPUs only."""
    if not c.get("trainer.sync_batchnorm") or c.get("trainer.accelerator") != "cpu":
        return None
    return "trainer.sync_batchnorm=true works on GPUs only; set it to false with trainer.accelerator=cpu"


def distributed_needs_devices(c: Choices) -> str | None:
    """Several processes on an Apple GPU do not exist."""
    strategy = str(c.get("trainer.strategy", "auto"))
    if c.get("trainer.accelerator") != "mps" or not strategy.startswith(_SEPARATE_PROCESSES):
        return None
    return f"trainer.strategy={strategy} does not run on an Apple GPU, which is a single device; use trainer=auto"


def sweeps_stay_in_process(c: Choices) -> str | None:
    """Lightning starts the other ranks by repeating the command, which would repeat the sweep."""
    strategy, devices = str(c.get("trainer.strategy", "auto")), c.get("trainer.devices")
    several = (isinstance(devices, int) and devices > 1) or (isinstance(devices, list) and len(devices) > 1)
    forks = strategy.endswith(("_spawn", "_fork", "_notebook"))
    if not c.sweep or forks or not (several or strategy.startswith(_SEPARATE_PROCESSES)):
        return None
    return (
        f"trainer.strategy={strategy} with trainer.devices={devices} would start the whole sweep again in each "
        "process; use trainer.strategy=ddp_spawn, or give the jobs as single commands"
    )


def extend_keeps_the_run(c: Choices) -> str | None:
    """Going on and starting anew exclude each other."""
    if not (c.get("extend") and c.get("rerun") == "all"):
        return None
    return "extend=true goes on from a finished run, rerun=all starts anew; give one of them"


def views_need_the_cache(c: Choices) -> str | None:
    """Without stored activations there are no views, and no rounding of them."""
    mode = c.get("cache.mode")
    if mode not in ("off", "images"):
        return None
    for key, usual in (("cache.views", ("auto", 0)), ("cache.dtype", ("run",))):
        if c.get(key, usual[0]) not in usual:
            return f"{key}={c.get(key)} has no effect with cache={mode}; leave it out, or use cache=auto"
    return None


def head_epochs_leave_some(c: Choices) -> str | None:
    """The strategy needs epochs of its own, and one that trains the head only gains nothing from them."""
    first, epochs = c.get("head_epochs", 0), c.get("trainer.max_epochs")
    if not first:
        return None
    if c.strategy is not None and c.strategy.only_head_learns:
        return f"head_epochs={first} has no effect with strategy=freeze or another that trains only the head"
    if c.strategy is not None and c.strategy.averages_weights:
        return (
            f"head_epochs={first} would move the head away from the start that this strategy averages with; "
            "use head_init=probe instead"
        )
    if first < epochs:
        return None
    return f"head_epochs={first} leaves nothing of trainer.max_epochs={epochs} for the strategy; lower it"


def head_init_fits(c: Choices) -> str | None:
    """Only one linear layer can be given weights in closed form."""
    how, head = c.get("head_init", "default"), str(c.get("head._target_"))
    if how == "default" or not head.startswith("headstart.") or head.endswith(".Linear"):
        return None
    return f"head_init={how} sets the weights of one linear layer; use head=linear, or leave head_init out"


def average_needs_moving_weights(c: Choices) -> str | None:
    """Interpolating an average hides what was interpolated."""
    if c.get("ema.decay") is None or c.strategy is None or not c.strategy.averages_weights:
        return None
    return "ema.decay and this strategy both average weights; leave one of them out"


def mixing_fits(c: Choices) -> str | None:
    """Methods that look at single images or labels cannot use mixed ones; one image cannot be mixed."""
    name, size = c.get("batch_transform.name", "none"), c.get("datamodule.batch_size")
    if name != "none" and size == 1:
        return f"batch_transform={name} mixes images of a batch, and datamodule.batch_size=1 has one; raise it"
    return None


def references_are_given(c: Choices) -> str | None:
    """A student needs a teacher: a strategy that refers to another run says so where none is given."""
    try:
        _ = c.strategy and c.strategy.references
    except ConfigError as error:
        return str(error)
    return None


def other_tasks_are_trained(c: Choices) -> str | None:
    """Parameter sharing needs something to share with, and other strategies do not look at it."""
    tasks = sorted({key.split(".")[1] for key in c.values if key.startswith("sources.")})
    if c.strategy is not None and c.strategy.trains_other_tasks and not tasks:
        return "strategy=share needs another task: +datamodule@sources.NAME.datamodule=digits"
    if c.strategy is not None and not c.strategy.trains_other_tasks and tasks:
        return f"sources.{tasks[0]} has no effect with this strategy; use strategy=share"
    if missing := [name for name in tasks if not c.get(f"sources.{name}.datamodule._target_")]:
        return f"sources.{missing[0]} has no datamodule: +datamodule@sources.{missing[0]}.datamodule=digits"
    bad = [name for name in tasks if name in {"train", "val", "test", "lr"} or not name.isidentifier()]
    if bad:
        return f"sources.{bad[0]}: a task's name is letters, digits and _, and not train, val, test or lr"
    return None


def one_class_methods_fit(c: Choices) -> str | None:
    """Methods that are made for one class an image."""
    task = c.get("task")
    if task not in {"multilabel", "regression"}:
        return None
    if c.strategy is not None and c.strategy.one_class_only:
        return f"task={task} does not go with this strategy, which needs one class an image; use l2sp, full or lp_ft"
    for key, usual in (("head_init", "default"), ("batch_transform.name", "none")):
        if c.get(key, usual) != usual:
            return f"{key}={c.get(key)} needs one class an image and does not go with task={task}; leave it out"
    return None


def views_are_of_one_size(c: Choices) -> str | None:
    """Stored views have the size of evaluation."""
    views, size = c.get("cache.views"), c.get("datamodule.train_size")
    if views in ("auto", 0, None) or not size:
        return None
    return (
        f"cache.views={views} stores views at the size of evaluation and does not go with "
        f"datamodule.train_size={size}; leave one of them out"
    )


RULES: tuple[Rule, ...] = (
    closed_form_fits,
    scratch_has_no_weights,
    shots_or_fraction,
    splits_leave_training_data,
    warmup_fits,
    min_epochs_fit,
    max_time_is_a_time,
    plateau_sees_every_epoch,
    early_stopping_can_stop,
    binary_has_two_classes,
    class_weights_fit,
    nesterov_has_momentum,
    precision_fits,
    sync_batchnorm_needs_gpus,
    distributed_needs_devices,
    sweeps_stay_in_process,
    extend_keeps_the_run,
    views_need_the_cache,
    head_epochs_leave_some,
    head_init_fits,
    average_needs_moving_weights,
    mixing_fits,
    references_are_given,
    other_tasks_are_trained,
    one_class_methods_fit,
    views_are_of_one_size,
)

DEVICE_RULES: tuple[Rule, ...] = (precision_fits, sync_batchnorm_needs_gpus, distributed_needs_devices)
"""Those of :data:`RULES` that read ``trainer.accelerator``: they are asked again once ``auto`` is decided."""
