"""Checks a composed configuration before anything heavy is imported."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headstart.config.rules import Choices, broken, devices_fit
from headstart.config.schema import COMPONENTS, LIGHTNING_SWITCHES, REMOVED, SPEC, components
from headstart.config.signature import Signature
from headstart.config.strategy import strategy_of
from headstart.errors import ConfigError
from headstart.strategies import Strategy
from headstart.system.names import leaves, suggestion
from headstart.system.options import fits, misfit, shown, without_effect, wording

EXPERIMENT_OUT_OF_PLACE = (
    "the file of the experiment is empty or does not begin with the line `# @package _global_`, so its keys would "
    "stand where nothing reads them; make that its first line"
)


@dataclass(frozen=True)
class _Known:
    """What is known of keys.

    Attributes:
        defaults: of the YAML files.
        added: by the user with ``+``.
        components: what each component takes; None: its class cannot be read.
    """

    defaults: Mapping[str, Any]
    added: Collection[str]
    components: Mapping[str, Signature | None]

    def component(self, key: str) -> str | None:
        """Dotted key of the component that a key belongs to."""
        return next((prefix for prefix in self.components if key.startswith(f"{prefix}.")), None)

    def annotation(self, key: str) -> Any:
        """What the value must fit; None: nobody knows the key."""
        prefix = self.component(key)
        if prefix is None:
            allowed = key in self.defaults or key in LIGHTNING_SWITCHES or self.inside(key)
            found = SPEC.get(key) if allowed else None
        else:
            name, takes = key.removeprefix(f"{prefix}."), self.components[prefix]
            found = str if name == "_target_" else SPEC.get(f"{prefix.rpartition('.')[2]}.{name}")
            found = found or (takes.options.get(name) if takes else None)
        closed = prefix is not None and (takes := self.components[prefix]) is not None and not takes.open
        if key in self.defaults and (found is Any or (found is None and not closed)):
            return like(self.defaults[key])
        return found

    def inside(self, key: str) -> list[str]:
        """Keys of the YAML files in the group of this name."""
        return self._groups.get(key, [])

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name in sorted(self.defaults):
            for group in _above(name):
                groups.setdefault(group, []).append(name)
        return groups


def check(
    config: Mapping[str, Any],
    reference: Mapping[str, Any],
    *,
    added: Collection[str] = (),
    sweep: bool = False,
    given: Collection[str] | None = None,
) -> None:
    """Unknown keys, wrong types, values out of range, then impossible combinations.

    Args:
        config: plain and resolved.
        reference: the YAML files' own values for the same choices of groups.
        added: keys that the user added with ``+``.
        sweep: the run is one of several that one command started.
        given: keys that the command gave a value; None: not known.

    Raises:
        ConfigError: with one line for each problem.
    """
    if problems := _not_in_place(config, reference):
        raise ConfigError("\n".join(problems))
    values, defaults = leaves(config), leaves(reference)
    known = _Known(defaults, added, components(config))
    problems = [
        *_missing(config, reference, known),
        *(
            problem
            for key, value in values.items()
            if not _repeats(value, defaults.get(key), values) and (problem := _problem(key, value, known))
        ),
    ]
    if not problems:
        problems = broken(Choices(values, defaults, strategy_of(config), sweep, given))
        for prefix, takes in known.components.items():
            options = {key.removeprefix(f"{prefix}."): value for key, value in values.items()}
            if takes and (problem := without_effect(prefix, takes.options, options)):
                problems.append(problem)
    if problems:
        raise ConfigError("\n".join(problems))


def check_devices(config: Mapping[str, Any]) -> None:
    """What :func:`check` could not judge while ``trainer.accelerator=auto`` was open.

    Args:
        config: plain, with its devices decided.

    Raises:
        ConfigError: with one line for each problem.
    """
    if problems := broken(Choices(leaves(config), {}, None), (devices_fit,)):
        raise ConfigError("\n".join(problems))


def check_strategy(config: Mapping[str, Any], strategy: Strategy) -> None:
    """What :func:`check` could not judge where it could not import the strategy: the same, once it is built.

    Args:
        config: resolved.
        strategy: as built.

    Raises:
        ConfigError: with one line for each problem.
    """
    if strategy_of(config) is not None:
        return
    problems = broken(Choices(leaves(config), {}, strategy, given=()))
    weights = config["backbone"].get("weights")
    if strategy.starts_from_random_weights and weights != "none":
        problems.append(
            f"backbone.weights={weights}: this strategy trains from random weights; use backbone.weights=none"
        )
    if problems:
        raise ConfigError("\n".join(problems))


def _not_in_place(config: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """What of a user's own YAML files stands where nothing reads it."""
    problems = [EXPERIMENT_OUT_OF_PLACE] if "experiment" in config else []
    for group in sorted(COMPONENTS):
        section, deleted = config.get(group), group not in config and group in reference
        if not deleted and not (isinstance(section, Mapping) and section.get("_target_")):
            problems.append(
                f"{group} names no class: its YAML file is empty, or its keys are not where they belong; at the left "
                "margin, without a `# @package` line, it has `_target_: MODULE.CLASS`"
            )
    return problems


def _missing(config: Mapping[str, Any], reference: Mapping[str, Any], known: _Known) -> list[str]:
    """Groups, keys that the code relies on and that were deleted with ``~``, and classes that there are not."""
    present = leaves(config)
    groups = {group for name in present for group in _above(name)}
    gone = [
        f"{group} was removed; leave it as it is, or choose another {group}"
        for group in reference
        if group not in config
    ]
    for key, value in leaves(reference).items():
        group = key.partition(".")[0]
        held = key in present or key in groups or any(parent in present for parent in _above(key))
        relied = key in SPEC or (group in COMPONENTS and group != "strategy" and known.annotation(key) is not None)
        if relied and group in config and group != "logger" and not held:
            gone.append(f"{key} was removed; leave it out of the command to get its default ({shown(value)})")
    for prefix, takes in known.components.items():
        target = str(present.get(f"{prefix}._target_"))
        if takes is None and target.startswith("headstart."):
            gone.append(f"{prefix}._target_={target}: there is no such {prefix.rpartition('.')[2]}")
    return gone


def _above(key: str) -> list[str]:
    """The groups that a dotted key is in: ``a`` and ``a.b`` of ``a.b.c``."""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _repeats(value: Any, default: Any, values: Mapping[str, Any]) -> bool:
    """Whether the YAML takes the value from another key (``${seed}``), where it is checked."""
    found = re.fullmatch(r"\$\{([\w.]+)\}", default) if isinstance(default, str) else None
    return found is not None and values.get(found[1]) == value


def _problem(key: str, value: Any, known: _Known) -> str | None:
    prefix = known.component(key)
    parents = _above(key)[prefix.count(".") + 1 if prefix else 0 :]
    for parent in parents:
        # A mapping stands where there is a single value.
        annotation = known.annotation(parent)
        if annotation is not None:
            wrong = f"{parent} must be {wording(annotation)}, not a group of keys ({key})"
            return None if fits({}, annotation) else wrong
    inside = known.inside(key)
    if inside and value != {}:
        return f"{key}={shown(value)}: {key} is a group of keys; set one of them: {', '.join(inside)}"
    annotation = known.annotation(key)
    if annotation is not None:
        return misfit(key, value, annotation)
    takes = known.components[prefix] if prefix else None
    given = any(name in known.added for name in (key, *parents))
    if inside or (prefix and given and (takes is None or takes.open)):
        return None
    return _unknown(key, known)


def _unknown(key: str, known: _Known) -> str:
    if key in REMOVED:
        return f"{key} is no key any more: {REMOVED[key]}"
    prefix = known.component(key) or key.partition(".")[0]
    takes = known.components.get(prefix)
    siblings = [name for name in known.defaults if name.startswith(f"{prefix}.") and not name.endswith("_target_")]
    if takes is not None:
        siblings = [f"{prefix}.{name}" for name in takes.options]
    hint = suggestion(key, siblings if "." in key else []) or suggestion(key, known.defaults)
    if not hint and prefix in known.components:
        names = ", ".join(name.removeprefix(f"{prefix}.") for name in siblings)
        hint = f"; it takes {names or 'no parameters'}"
    return f"{key} is unknown{hint}"


def like(default: Any) -> Any:
    """What may stand where a YAML file says ``default``: the same kind; anything for ``null`` and ``auto``."""
    if isinstance(default, str) and (default == "auto" or "${" in default):
        return Any
    known = {bool: bool, int: int, float: float, str: str | None, list: list | None}
    return known.get(type(default), Any)
