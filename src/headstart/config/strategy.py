"""The chosen strategy before anything is built, for the rules that ask its attributes."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from headstart.errors import ConfigError
from headstart.strategies import Strategy

_OWN = "headstart.strategies."


def strategy_class(config: Mapping[str, Any]) -> type | None:
    """The strategy's class if it is one of the package's; the fields of a user's own are those of its YAML.

    Raises:
        ConfigError: the package has no such strategy.
    """
    strategy = config.get("strategy")
    target = strategy.get("_target_") if isinstance(strategy, Mapping) else None
    if not isinstance(target, str) or not target.startswith(_OWN):
        return None
    found = getattr(importlib.import_module(_OWN[:-1]), target.removeprefix(_OWN), None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ConfigError(f"strategy._target_={target}: there is no such strategy")
    return found


def strategy_of(config: Mapping[str, Any]) -> Strategy | None:
    """The strategy that a plain configuration names, or None where it cannot be imported and made here."""
    choice = config["strategy"]
    module, _, name = str(choice.get("_target_")).rpartition(".")
    try:
        named = getattr(importlib.import_module(module), name)
        known = {field.name for field in dataclasses.fields(named) if field.init}
        made = named(**{key: value for key, value in choice.items() if key in known})
    except Exception:  # a user's file may fail in any way; building the run will say how
        return None
    return made if isinstance(made, Strategy) else None
