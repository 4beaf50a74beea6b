"""What choosing a head in closed form (``logreg``, ``knn``, ``ncm``, ``ridge``) means for the other choices.

Such a head is known by its key ``refit``. It takes no steps, so what is only about steps has no effect on it: a single
command that asks for it is refused, in a sweep (where other heads take steps) and as a default it is set aside, and the
fingerprint is the same whatever stood there.
"""

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from headstart.config.schema import marked
from headstart.system.options import StepsOnly

if TYPE_CHECKING:
    from headstart.config.rules import Choices

NOT_USED: Mapping[str, Any] = {"name": "none"}
"""What stands for an optimizer and a scheduler where there are no steps."""

_MARK = "refit"
_GROUPS = ("optimizer", "scheduler")
# Of this package; the class of another one says so itself, in `tasks`, once torch is imported.
_ONE_CLASS = ("LogisticRegression", "NearestClassMean", "NearestNeighbours")
_ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto"}


def is_closed_form(config: Mapping[str, Any]) -> bool:
    """Whether the head of a plain configuration is solved for."""
    return _MARK in (config.get("head") or {})


def set_aside(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with everything that is only about steps replaced by what stands for "not used"."""
    settled = deepcopy(dict(config))
    for group in _GROUPS:
        settled[group] = dict(NOT_USED)
    for key, mark in marked(StepsOnly, config).items():
        group, _, name = key.partition(".")
        if name in settled[group]:
            settled[group][name] = mark.unused
    settled["trainer"].update(_ONE_PROCESS)
    settled["strategy"].pop("lr_mult", None)
    settled["callbacks"]["early_stopping"]["enabled"] = False
    return settled


def decide_refit(config: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Whether a head that leaves it open is solved for again on training and validation images together.

    Where only a part of the training images is used it is not: ten images a class beside hundreds for validation would
    no longer be ten. As the default it is the same, so that it does not show in the run's name.
    """
    if config["head"][_MARK] is None:
        data = config["datamodule"]
        part = data.get("shots") is not None or data.get("fraction") is not None
        # Under the rule of VTAB-1k for the run that counts, validation images are training images already.
        config["head"][_MARK] = not part and data.get("vtab_1k") != "final"
        defaults["head"][_MARK] = config["head"][_MARK]


def closed_form_fits(c: "Choices") -> Iterator[str]:
    """A head in closed form goes with frozen features in one process, and takes no steps."""
    if f"head.{_MARK}" not in c.values:
        return
    head = str(c.get("head._target_")).rpartition(".")[2]
    what = f"a head in closed form (head._target_={head})"
    if c.strategy is not None and not c.strategy.only_head_learns:
        yield (
            f"{what} is solved for on frozen features; use strategy=freeze, or head=linear with this strategy (one of "
            "your own that trains nothing but the head says so: only_head_learns = True)"
        )
        return
    if c.get("extend"):
        yield f"extend=true has no meaning for {what}, which has no epochs; leave it out"
    if several := _several_processes(c):
        yield f"{several} does not go with {what}, which is solved for in one process; leave it out"
    if (mixing := c.get("batch_transform.name", "none")) != "none":
        yield f"batch_transform={mixing} mixes images in steps, and {what} has none; leave it out"
    if c.get("ema.decay") is not None:
        yield f"ema.decay={c.get('ema.decay')} averages over steps, and {what} has none; leave it out"
    for key, usual in (("loss.label_smoothing", 0), ("loss.class_weights", "none")):
        if c.get(key, usual) != usual:
            yield f"{key}={c.get(key)} is unknown to {what}; leave it out, or use head=linear"
    ours = str(c.get("head._target_")).startswith("headstart.heads.")
    if c.get("task") in {"multilabel", "regression"} and ours and head in _ONE_CLASS:
        yield f"task={c.get('task')} does not go with {what}, which needs one class an image; use head=ridge or linear"
    if not c.sweep and c.given is not None:
        yield from _without_effect(c, what, c.given)


def _several_processes(c: "Choices") -> str | None:
    devices, nodes, strategy = c.get("trainer.devices"), c.get("trainer.num_nodes", 1), str(c.get("trainer.strategy"))
    if isinstance(devices, list | int) and devices not in (0, 1) and (isinstance(devices, int) or len(devices) > 1):
        return f"trainer.devices={devices}"
    if nodes != 1:
        return f"trainer.num_nodes={nodes}"
    return None if strategy in {"auto", "single_device"} else f"trainer.strategy={strategy}"


def _without_effect(c: "Choices", what: str, given: Collection[str]) -> Iterator[str]:
    unused = marked(StepsOnly, {"datamodule": {"_target_": c.get("datamodule._target_")}})
    for key in sorted(given):
        asked = key == "strategy.lr_mult" or key.partition(".")[0] in _GROUPS
        if (mark := unused.get(key)) and not mark.harmless:
            asked |= c.get(key) not in (mark.unused, c.defaults.get(key))
        if asked:
            yield f"{key} has no effect on {what}, which takes no steps and sees each image once; leave it out"
