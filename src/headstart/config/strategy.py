"""The chosen strategy before anything is built, for the rules that ask its attributes."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from headstart.strategies import Strategy


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
