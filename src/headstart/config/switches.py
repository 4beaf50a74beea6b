"""Hydra's switches among the arguments of a command."""

from collections.abc import Sequence
from itertools import islice

# Which switches there are only Hydra's own parser knows; pyproject.toml bounds Hydra below its next minor version.
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException

from headstart.errors import ConfigError
from headstart.system.catalog import GROUPS

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
        return for_each_job(given) if {"-m", "--multirun"} & set(first) else given
    key, _, value = unknown.lstrip("-").partition("=")
    if not key:
        raise ConfigError(f"'{unknown}' is no switch; `--help` lists what there is")
    example = value or ("full" if key == "strategy" else "NAME" if key in GROUPS else "VALUE")
    raise ConfigError(f"'{unknown}' is no switch; choices have no dashes: {key}={example}")


def for_each_job(arguments: Sequence[str]) -> list[str]:
    """A sweep's overrides, with keys of a group that it varies left to the jobs.

    Hydra composes a sweep once without what varies, where ``head=logreg,ridge head.refit=false`` would set the key of a
    head that no job has. A choice of one value is set for each job only.
    """
    try:
        parsed = OverridesParser.create().parse_overrides([a for a in arguments if "=" in a and not a.startswith("-")])
    except HydraException:
        return list(arguments)  # Hydra says it better.
    varied = {override.key_or_group for override in parsed if override.is_sweep_override()}
    single = {
        override.input_line: f"{override.key_or_group}=choice({override.get_value_element_as_str()})"
        for override in parsed
        if override.type == OverrideType.CHANGE
        and not override.is_sweep_override()
        and override.key_or_group.partition(".")[0] in varied - {override.key_or_group}
    }
    return [single.get(argument, argument) for argument in arguments]
