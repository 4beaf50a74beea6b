"""Components that a run directory names.

Such a directory may come from anywhere, so it is data: only classes of this package are built from it, and those of
modules that the user trusts by name.
"""

import argparse
import importlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headstart.config.settings import Component
from headstart.errors import RunError

TRUST_VARIABLE = "HEADSTART_TRUST"
"""Environment: modules of the user's own that run directories may name, with commas between."""

_PACKAGES = {"strategy": "strategies", "head": "heads", "backbone": "backbones", "datamodule": "data"}


def trust(modules: Iterable[str]) -> None:
    """Let run directories name classes of these modules, in this process and those that it starts."""
    known = [*_trusted(), *(name for name in modules if name)]
    os.environ[TRUST_VARIABLE] = ",".join(dict.fromkeys(known))


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option of every command that reads a run directory."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of your own that the run may name (its strategy, head, …); nothing else of a run is executed",
    )


def foreign_component(config: Mapping[str, Any], group: str, run: Path) -> Component:
    """What a run's ``config.yaml`` names for ``group``, checked before anything of it is imported.

    Args:
        config: the whole file.
        group: ``strategy``, ``head``, ``backbone`` or ``datamodule``.
        run: the directory, for the message.

    Raises:
        RunError: it is no class of this package or of a trusted module, or its arguments would build further things.
    """
    section = config.get(group)
    if not isinstance(section, Mapping):
        raise RunError(f"{run / 'config.yaml'} has no {group}; copy the run directory again, or run it again")
    target = str(section.get("_target_", ""))
    module = target.rpartition(".")[0]
    if not _is_own(target, _PACKAGES[group]) and not any(
        module == name or module.startswith(f"{name}.") for name in _trusted()
    ):
        raise RunError(
            f"{run / 'config.yaml'} names {group}._target_={target or '(nothing)'}, which is no part of Headstart, so "
            f"it was not run. If the directory is yours and you trust that module: --trust {module or 'MODULE'} (or "
            f"{TRUST_VARIABLE}={module or 'MODULE'})"
        )
    arguments = {key: value for key, value in section.items() if key != "_target_"}
    if found := next(_active(arguments), None):
        raise RunError(
            f"{run / 'config.yaml'} has {found} within {group}, where only plain values belong, so nothing of it was "
            "run; get the directory again from where it was trained"
        )
    return Component(target, arguments)


def _is_own(target: str, package: str) -> bool:
    """Whether it is a class that this package itself defines where classes of its kind are."""
    home = f"headstart.{package}"
    if not re.fullmatch(rf"{re.escape(home)}\.(\w+\.)?[A-Z]\w*", target):
        return False
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and f"{found.__module__}.".startswith(f"{home}.")


def _trusted() -> list[str]:
    return [name.strip() for name in os.environ.get(TRUST_VARIABLE, "").split(",") if name.strip()]


def _active(value: Any) -> Iterator[str]:
    """What would do more than be a value: keys of Hydra's, interpolations."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if re.fullmatch(r"_\w+_", str(key)):
                yield str(key)
            yield from _active(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _active(inner)
    elif isinstance(value, str) and "${" in value:
        yield value
