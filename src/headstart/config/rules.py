"""Choices that are right one by one and impossible together, by what they are about."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headstart.config.closed_form import closed_form_fits
from headstart.errors import ConfigError
from headstart.strategies import Strategy

# Known without reading any data; of other data sets the task itself checks the classes.
_CLASSES = {"headstart.data.Digits": 10, "headstart.data.CIFAR10": 10, "headstart.data.Flowers102": 102}
_PARTS_OF_TIME = ("weeks", "days", "hours", "minutes", "seconds")
_SEPARATE_PROCESSES = ("ddp", "fsdp", "deepspeed")

STAGES = "stages"
"""Key of a head that answers for every pixel."""

# Keys that must have this value with task=segmentation, and what another does.
_NEEDED_BY_MASKS = {
    "batch_transform.name": ("none", "mixes images, and masks cannot be mixed"),
    "head_init": ("default", "sets the weights of one linear layer on pooled features"),
    "calibrate": ("none", "looks at one answer an image"),
    "datamodule.train_size": (None, "gives the head maps of another size than evaluation does"),
    "datamodule.shots": (None, "counts images a class, and an image has several; use datamodule.fraction"),
    "datamodule.classes": (None, "chooses whole images"),
    "datamodule.fit": (None, "leaves parts of a mask out; images are squashed"),
    "trainer.compile": (False, "cannot follow maps out of several stages"),
}


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

    @property
    def known_strategy(self) -> Strategy:
        """The strategy; one that claims nothing where it cannot be imported yet."""
        return Strategy() if self.strategy is None else self.strategy


# Options of a datamodule that another task beside the target does not follow.
_OF_TARGET_ONLY = (".batch_size", ".drop_last", ".steps_per_epoch")

Rule = Callable[[Choices], Iterator[str]]


def weights_and_data_fit(c: Choices) -> Iterator[str]:
    """What the run starts from, and what is left of the data."""
    weights = c.get("backbone.weights", "auto")
    # Not given, they are an experiment's that compares with training from scratch: their preprocessing is taken.
    asked = c.given is None or "backbone.weights" in c.given
    unused = c.known_strategy.starts_from_random_weights and weights not in {"auto", "none"}
    if asked and unused and weights != c.defaults.get("backbone.weights"):
        yield (
            f"backbone.weights={weights} has no effect with a strategy that trains from random weights; leave it out"
        )
    shots, fraction = c.get("datamodule.shots"), c.get("datamodule.fraction")
    if shots is not None and fraction is not None:
        yield (
            f"datamodule.shots={shots} and datamodule.fraction={fraction} both shrink the training split; give one of "
            "them"
        )
    val, test = c.get("datamodule.val_fraction") or 0, c.get("datamodule.test_fraction") or 0
    if val + test >= 1:
        yield (
            f"datamodule.val_fraction={val} and datamodule.test_fraction={test} leave nothing to train on; lower them"
        )
    views, size = c.get("cache.views"), c.get("datamodule.train_size")
    if views not in ("auto", 0, None) and size:
        yield (
            f"cache.views={views} stores views at the size of evaluation and does not go with "
            f"datamodule.train_size={size}; leave one of them out"
        )
    for key, usual in (("cache.views", ("auto", 0)), ("cache.dtype", ("run",))):
        if c.get("cache.mode") in ("off", "images") and c.get(key, usual[0]) not in usual:
            yield f"{key}={c.get(key)} has no effect with cache={c.get('cache.mode')}; leave it out, or use cache=auto"
            break


def nothing_is_chosen_on_what_is_trained_on(c: Choices) -> Iterator[str]:
    """In the run that counts under the rule of VTAB-1k, validation images are training images too."""
    if c.get("datamodule.vtab_1k") != "final":
        return
    what = "on images that datamodule.vtab_1k=final trains on"
    for key in ("head.l2", "head.k"):
        if key in c.values and not isinstance(c.get(key), int | float):
            yield f"{key}={c.get(key)} is chosen {what}; give the one value that datamodule.vtab_1k=choose found"
    if c.get("head.refit"):
        yield "head.refit=true takes the validation images twice with datamodule.vtab_1k=final; leave it out"
    for key, value in (
        ("calibrate", "temperature"),
        ("head_init", "probe"),
        ("callbacks.early_stopping.enabled", True),
        ("scheduler.name", "plateau"),
    ):
        if c.get(key) == value:
            yield f"{key}={str(value).lower()} decides {what}; leave it out"


def epochs_fit(c: Choices) -> Iterator[str]:
    """Everything that has a length of its own ends within the training, and looks at enough of it."""
    epochs = c.get("trainer.max_epochs")
    warmup, least = c.get("scheduler.warmup_epochs", 0), c.get("trainer.min_epochs")
    if warmup > epochs:
        yield f"scheduler.warmup_epochs={warmup} exceeds trainer.max_epochs={epochs}; lower it or train longer"
    if least is not None and least > epochs:
        yield f"trainer.min_epochs={least} exceeds trainer.max_epochs={epochs}; lower it or train longer"
    every = c.get("trainer.check_val_every_n_epoch", 1)
    if c.get("scheduler.name") == "plateau" and every != 1:
        yield (
            f"scheduler=plateau follows the validation of every epoch, and trainer.check_val_every_n_epoch={every} "
            "skips some; set it to 1, or use scheduler=cosine"
        )
    patience = c.get("callbacks.early_stopping.patience")
    if c.get("callbacks.early_stopping.enabled") and patience >= epochs:
        yield (
            f"callbacks.early_stopping.patience={patience} can never stop a training of trainer.max_epochs={epochs}; "
            "lower the patience, train longer, or leave early stopping off"
        )
    if c.get("extend") and c.get("rerun") == "all":
        yield "extend=true goes on from a finished run, rerun=all starts anew; give one of them"


def max_time_is_a_time(c: Choices) -> Iterator[str]:
    """Given part by part, a time has parts that there are, and some length."""
    parts = {key.rpartition(".")[2]: value for key, value in c.values.items() if key.startswith("trainer.max_time.")}
    numbers = [value for value in parts.values() if isinstance(value, int | float) and not isinstance(value, bool)]
    if wrong := [name for name in parts if name not in _PARTS_OF_TIME]:
        yield f"trainer.max_time has no {wrong[0]}; it takes {', '.join(_PARTS_OF_TIME)}, such as {{hours: 1}}"
    elif len(numbers) < len(parts) or (parts and not (min(numbers) >= 0 and 0 < sum(numbers) < float("inf"))):
        given = ", ".join(f"{name}: {value}" for name, value in parts.items())
        yield f"trainer.max_time={{{given}}}: must be numbers of at least 0 that are not all 0, such as {{hours: 1}}"


def task_fits(c: Choices) -> Iterator[str]:
    """The number of classes, and methods that are made for one class an image."""
    task, weights, chosen = c.get("task"), c.get("loss.class_weights"), c.get("datamodule.classes")
    classes = len(chosen) if chosen else _CLASSES.get(str(c.get("datamodule._target_")))
    if task == "binary" and classes not in {None, 2}:
        yield f"task=binary needs two classes, and this data set has {classes}; use task=multiclass or task=auto"
    if isinstance(weights, list) and classes is not None and len(weights) != classes:
        yield f"loss.class_weights has {len(weights)} numbers for {classes} classes; give {classes}, or balanced"
    balanced = c.get("datamodule.sampler") == "balanced"
    if balanced and weights not in ("none", None):
        yield (
            f"datamodule.sampler=balanced and loss.class_weights={weights} both make up for rare classes; leave one out"
        )
    if task == "regression" and c.get("calibrate", "none") != "none":
        yield f"calibrate={c.get('calibrate')} is about probabilities, which task=regression has none of; leave it out"
    if task != "multilabel" and c.get("thresholds", "validation") != "validation":
        yield f"thresholds={c.get('thresholds')} has an effect with task=multilabel only; leave it out"
    if task not in {"multilabel", "regression"}:
        return
    if balanced:
        yield f"datamodule.sampler=balanced needs one class an image and does not go with task={task}; leave it out"
    if c.known_strategy.one_class_only:
        yield f"task={task} does not go with this strategy, which needs one class an image; use l2sp, full or lp_ft"
    for key, usual in (("head_init", "default"), ("batch_transform.name", "none")):
        if c.get(key, usual) != usual:
            yield f"{key}={c.get(key)} needs one class an image and does not go with task={task}; leave it out"


def segmentation_fits(c: Choices) -> Iterator[str]:
    """A class for every pixel needs a head and a map for it, and nothing that is made for one class an image."""
    dense, head = f"head.{STAGES}" in c.values, str(c.get("head._target_")).rpartition(".")[2]
    if c.get("task") != "segmentation":
        if dense:
            yield f"this head (head._target_={head}) answers for every pixel, which needs task=segmentation"
        return
    if not dense:
        yield f"task=segmentation needs a head that answers for every pixel, which {head} does not; use head=dense"
    if c.get("backbone.pre_logits") == "keep":
        yield "backbone.pre_logits=keep ends in one vector an image, and task=segmentation needs a map; set it to drop"
    if c.known_strategy.one_class_only or c.known_strategy.trains_other_tasks:
        yield "task=segmentation does not go with this strategy, which needs one class an image; use full or lora"
    for key, (needed, reason) in _NEEDED_BY_MASKS.items():
        if c.get(key, needed) not in (needed, "squash"):
            yield f"{key}={c.get(key)} does not go with task=segmentation: it {reason}"


def steps_fit(c: Choices) -> Iterator[str]:
    """What happens in each step."""
    if c.get("optimizer.nesterov") and not c.get("optimizer.momentum"):
        yield "optimizer.nesterov=true needs optimizer.momentum above 0; set it to 0.9, or nesterov to false"
    if c.get("ema.decay") is not None and c.known_strategy.averages_weights:
        yield "ema.decay and this strategy both average weights; leave one of them out"
    mixing = c.get("batch_transform.name", "none")
    if mixing != "none" and c.get("datamodule.batch_size") == 1:
        yield f"batch_transform={mixing} mixes images of a batch, and datamodule.batch_size=1 has one; raise it"


def head_starts_well(c: Choices) -> Iterator[str]:
    """Only one linear layer can be given weights in closed form, and the strategy needs epochs of its own."""
    how, head = c.get("head_init", "default"), str(c.get("head._target_"))
    if how != "default" and head.startswith("headstart.") and not head.endswith(".Linear"):
        yield f"head_init={how} sets the weights of one linear layer; use head=linear, or leave head_init out"
    first, epochs = c.get("head_epochs", 0), c.get("trainer.max_epochs")
    if not first:
        return
    if c.known_strategy.only_head_learns:
        yield f"head_epochs={first} has no effect with strategy=freeze or another that trains only the head"
    elif c.known_strategy.averages_weights:
        yield (
            f"head_epochs={first} would move the head away from the start that this strategy averages with; "
            "use head_init=probe instead"
        )
    elif first >= epochs:
        yield f"head_epochs={first} leaves nothing of trainer.max_epochs={epochs} for the strategy; lower it"


def devices_fit(c: Choices) -> Iterator[str]:
    """What the kind of device cannot do; asked again once ``trainer.accelerator=auto`` is decided."""
    accelerator, precision = c.get("trainer.accelerator"), str(c.get("trainer.precision"))
    strategy = str(c.get("trainer.strategy", "auto"))
    if accelerator == "cpu" and precision in {"16", "16-mixed"}:
        yield f"trainer.precision={precision} does not run on the CPU; use bf16-mixed or 32-true"
    if accelerator == "cpu" and c.get("trainer.sync_batchnorm"):
        yield "trainer.sync_batchnorm=true works on GPUs only; set it to false with trainer.accelerator=cpu"
    if accelerator == "mps" and strategy.startswith(_SEPARATE_PROCESSES):
        yield f"trainer.strategy={strategy} does not run on an Apple GPU, which is a single device; use trainer=auto"


def sweeps_stay_in_process(c: Choices) -> Iterator[str]:
    """Lightning starts the other ranks by repeating the command, which would repeat the sweep."""
    strategy, devices = str(c.get("trainer.strategy", "auto")), c.get("trainer.devices")
    several = (isinstance(devices, int) and devices > 1) or (isinstance(devices, list) and len(devices) > 1)
    forks = strategy.endswith(("_spawn", "_fork", "_notebook"))
    if c.sweep and not forks and (several or strategy.startswith(_SEPARATE_PROCESSES)):
        yield (
            f"trainer.strategy={strategy} with trainer.devices={devices} would start the whole sweep again in each "
            "process; use trainer.strategy=ddp_spawn, or give the jobs as single commands"
        )


def references_are_given(c: Choices) -> Iterator[str]:
    """A student needs a teacher: a strategy that refers to another run says so where none is given."""
    try:
        _ = c.known_strategy.references
    except ConfigError as error:
        yield str(error)


def other_tasks_are_trained(c: Choices) -> Iterator[str]:
    """Parameter sharing needs something to share with, and other strategies do not look at it."""
    tasks = sorted({key.split(".")[1] for key in c.values if key.startswith("sources.")})
    shares = c.strategy is not None and c.strategy.trains_other_tasks
    if shares and not tasks:
        yield "strategy=share needs another task: +datamodule@sources.NAME.datamodule=digits"
    elif c.strategy is not None and not shares and tasks:
        yield f"sources.{tasks[0]} has no effect with this strategy; use strategy=share"
    elif missing := [name for name in tasks if not c.get(f"sources.{name}.datamodule._target_")]:
        yield f"sources.{missing[0]} has no datamodule: +datamodule@sources.{missing[0]}.datamodule=digits"
    elif unused := [key for key in c.given or () if key.startswith("sources.") and key.endswith(_OF_TARGET_ONLY)]:
        yield f"{unused[0]} has no effect: the target's steps and batches are those of every task; leave it out"
    elif bad := [name for name in tasks if name in {"train", "val", "test", "lr"} or not name.isidentifier()]:
        yield f"sources.{bad[0]}: a task's name is letters, digits and _, and not train, val, test or lr"


RULES: tuple[Rule, ...] = (
    closed_form_fits,
    weights_and_data_fit,
    nothing_is_chosen_on_what_is_trained_on,
    epochs_fit,
    max_time_is_a_time,
    task_fits,
    segmentation_fits,
    steps_fit,
    head_starts_well,
    devices_fit,
    sweeps_stay_in_process,
    references_are_given,
    other_tasks_are_trained,
)


def broken(choices: Choices, rules: tuple[Rule, ...] = RULES) -> list[str]:
    """What is impossible, one line each."""
    return [problem for rule in rules for problem in rule(choices)]
