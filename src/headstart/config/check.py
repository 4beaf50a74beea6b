"""Checks a composed configuration before anything heavy is imported."""

import dataclasses
import re
import types
from collections.abc import Collection, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from headstart.config.fields import Field, like
from headstart.config.rules import RULES, Choices
from headstart.config.schema import COMPONENTS, LIGHTNING_SWITCHES, REMOVED, SPEC
from headstart.config.strategy import strategy_class, strategy_of
from headstart.errors import ConfigError
from headstart.strategies import Strategy
from headstart.system.names import leaves, suggestion


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
    values, defaults = leaves(config), leaves(reference)
    strategy = strategy_class(config)
    problems = [
        *_missing(config, reference),
        *(
            problem
            for key, value in values.items()
            if not _repeats(value, defaults.get(key), values)
            and (problem := _problem(key, value, defaults, added, strategy))
        ),
    ]
    if not problems:
        problems = _impossible(Choices(values, defaults, strategy_of(config), sweep, given))
    if problems:
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
    problems = _impossible(Choices(leaves(config), {}, strategy, given=()))
    weights = config["backbone"].get("weights")
    if strategy.starts_from_random_weights and weights != "none":
        problems.append(
            f"backbone.weights={weights}: this strategy trains from random weights; use backbone.weights=none"
        )
    if problems:
        raise ConfigError("\n".join(problems))


def _impossible(choices: Choices) -> list[str]:
    return [problem for rule in RULES if (problem := rule(choices))]


def _missing(config: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """Groups and keys that the code relies on and that were deleted with ``~``."""
    present = leaves(config)
    gone = [
        f"{group} was removed; leave it as it is, or choose another {group}"
        for group in reference
        if group not in config
    ]
    for key, value in leaves(reference).items():
        group = key.partition(".")[0]
        held = any(name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.") for name in present)
        if key in SPEC and group in config and group != "logger" and not held:
            gone.append(f"{key} was removed; leave it out of the command to get its default ({_shown(value)})")
    return gone


def _repeats(value: Any, default: Any, values: Mapping[str, Any]) -> bool:
    """Whether the YAML takes the value from another key (``${seed}``), where it is checked."""
    found = re.fullmatch(r"\$\{([\w.]+)\}", default) if isinstance(default, str) else None
    return found is not None and values.get(found[1]) == value


def _problem(
    key: str, value: Any, defaults: Mapping[str, Any], added: Collection[str], strategy: type | None
) -> str | None:
    parents = [".".join(key.split(".")[:n]) for n in range(1, key.count(".") + 1)]
    group = key.partition(".")[0]
    for parent in parents:
        if parent in SPEC or parent in defaults:
            # A mapping stands where the YAML has a single value.
            field = SPEC.get(parent) or like(defaults[parent])
            return None if field.allows({}) else f"{parent} must be {field.wants}, not a group of keys ({key})"
    inside = sorted(name for name in defaults if name.startswith(f"{key}."))
    if inside and value != {}:
        return f"{key}={_shown(value)}: {key} is a group of keys; set one of them: {', '.join(inside)}"
    if group == "strategy" and strategy is not None and key != "strategy._target_":
        return _strategy_problem(key, value, strategy)
    if key in SPEC and (key in defaults or key in LIGHTNING_SWITCHES or group in COMPONENTS or inside):
        return _misfit(key, value, SPEC[key])
    if key in defaults:
        return _misfit(key, value, like(defaults[key]))
    if inside:
        return None
    if group in COMPONENTS and (key in added or any(parent in added for parent in parents)):
        return None
    return _unknown(key, defaults)


def _unknown(key: str, defaults: Mapping[str, Any]) -> str:
    if key in REMOVED:
        return f"{key} is no key any more: {REMOVED[key]}"
    group = key.partition(".")[0]
    siblings = [name for name in defaults if name.startswith(f"{group}.")] if "." in key else []
    hint = suggestion(key, siblings) or suggestion(key, defaults)
    if not hint and group in COMPONENTS and siblings:
        hint = f"; it has {', '.join(name.partition('.')[2] for name in siblings if not name.endswith('_target_'))}"
    return f"{key} is unknown{hint}"


def _misfit(key: str, value: Any, field: Field) -> str | None:
    if field.allows(value):
        return None
    hint = suggestion(value, field.options) if isinstance(value, str) else ""
    return f"{key}={_shown(value)}: must be {field.wants}{hint}"


def _strategy_problem(key: str, value: Any, strategy: type) -> str | None:
    name = key.split(".")[1]
    fields = {field.name: field for field in dataclasses.fields(strategy) if field.init}
    if name not in fields:
        hint = suggestion(key, [f"strategy.{field}" for field in fields])
        takes = f"it takes {', '.join(fields)}" if fields else "it takes no parameters"
        return f"{key} is unknown{hint or f'; {takes}'}"
    if key.count(".") > 1:
        return None
    if key in SPEC:
        return _misfit(key, value, SPEC[key])
    annotation = get_type_hints(strategy)[name]
    if fits(value, annotation):
        return None
    return f"{key}={_shown(value)}: must be {_wording(annotation)}"


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value fits a type annotation; annotations of other kinds fit anything."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin in {Union, types.UnionType}:
        return any(fits(value, option) for option in arguments)
    if origin in {list, tuple, set, frozenset} or annotation in {list, tuple}:
        return _fits_sequence(value, origin, arguments)
    if origin is dict or annotation is dict or origin is Mapping:
        return isinstance(value, Mapping)
    if annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in {bool, str}:
        return isinstance(value, annotation)
    return True


def _fits_sequence(value: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    if not arguments:
        return True
    if origin is tuple and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    return all(fits(item, arguments[0]) for item in value)


def _wording(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(str(option) for option in arguments)
    if origin in {Union, types.UnionType}:
        return " or ".join(_wording(option) for option in arguments)
    if origin in {list, tuple, set, frozenset}:
        return f"a list such as [...] with {' and '.join(_wording(a) for a in arguments if a is not Ellipsis)}"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", type(None): "null"}
    return words.get(annotation, str(annotation))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
