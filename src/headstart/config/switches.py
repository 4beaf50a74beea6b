"""Hydra's switches among the arguments of a command."""

from collections.abc import Sequence
from itertools import islice

from hydra._internal.utils import get_args_parser

from headstart.config.catalog import GROUPS
from headstart.errors import ConfigError

_WITH_VALUE = frozenset({"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p"})
_WITHOUT_VALUE = frozenset({"-m", "--multirun", "--run", "-r", "--resolve"})


def ordered(arguments: Sequence[str]) -> list[str]:
    """The arguments in an order that Hydra reads: it takes no switch between two overrides.

    Raises:
        ConfigError: a switch that does not exist; most are overrides with dashes in front.
    """
    first: list[str] = []
    rest: list[str] = []
    coming = iter(arguments)
    for argument in coming:
        if argument in _WITH_VALUE:
            pair = [argument, *islice(coming, 1)]
            (first if len(pair) == 2 else rest).extend(pair)
        else:
            alone = argument in _WITHOUT_VALUE or argument.partition("=")[0] in _WITH_VALUE
            (first if alone else rest).append(argument)
    given = [*first, *rest]
    unknown = next((a for a in get_args_parser().parse_known_args(given)[1] if a.startswith("-")), None)
    if unknown is None:
        return given
    key, _, value = unknown.lstrip("-").partition("=")
    if not key:
        raise ConfigError(f"'{unknown}' is no switch; `--help` lists what there is")
    example = value or ("full" if key == "strategy" else "NAME" if key in GROUPS else "VALUE")
    raise ConfigError(f"'{unknown}' is no switch; choices have no dashes: {key}={example}")
