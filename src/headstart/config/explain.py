"""Turns what Hydra and OmegaConf say about a wrong command into one line that helps."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from headstart.config.check import EXPERIMENT_OUT_OF_PLACE
from headstart.config.compose import compose, plain_unresolved
from headstart.config.schema import REMOVED
from headstart.errors import ConfigError, HeadstartError
from headstart.system.catalog import GROUPS, conf_dir, options
from headstart.system.names import leaves, nearest, suggestion
from headstart.system.names import override as as_override

# In three wordings Hydra says that a key, a group or a choice was added that is there.
_TWICE = r"An item is already at '([^']+)'|^(\S+) appears more than once|Multiple values for (\w+)"


def explain(error: BaseException, arguments: Sequence[str], folders: Sequence[Path]) -> str | None:
    """One line for an error that the user can fix (one line for each problem where there are several), else None.

    Args:
        error: as it was raised.
        arguments: of the command, overrides and switches.
        folders: of YAML files, the user's own first.
    """
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    own = _cause(error, HeadstartError)
    if own is not None:
        return str(own)
    if isinstance(error, MissingConfigException):
        return _missing_option(error, folders)
    if isinstance(error, OverrideParseException):
        return _unreadable(error, overrides, folders)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is required here and has no default; give {error.full_key}=..."
    if isinstance(error, InterpolationKeyError | InterpolationResolutionError):
        return f"{error.full_key} refers to something that is not there: {_first_line(error)}"
    if isinstance(error, InstantiationException):
        return _instantiation(error)
    if isinstance(error, yaml.YAMLError):
        return f"a YAML file cannot be read: {' '.join(str(error).split())}"
    if isinstance(error, HydraException):
        return _composition(error, overrides, folders)
    if isinstance(error, OmegaConfBaseException):
        key = f"{error.full_key}: " if error.full_key else ""
        return f"{key}{_first_line(error)}"
    if isinstance(error, ValueError) and "Config group override must be" in str(error):
        return _no_name(overrides, folders)
    if isinstance(error, ValueError) and "Only one of --run" in str(error):
        return "only one of -m, --cfg and --info can be given"
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"the device ran out of memory ({_first_line(error)}); lower datamodule.batch_size "
            "(and raise trainer.accumulate_grad_batches by the same factor), or datamodule.image_size"
        )
    return None


@contextmanager
def explained(overrides: Sequence[str], config_dir: str | Path | None = None) -> Iterator[None]:
    """Within the block what Hydra and OmegaConf say about choices becomes a ConfigError that helps.

    Args:
        overrides: the choices.
        config_dir: a folder of the user's own YAML files.
    """
    for override in overrides:
        if not isinstance(override, str):
            raise ConfigError(f"{override!r} is no text; give each choice as a text of its own: 'strategy=full'")
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:
        own = [] if config_dir is None else [Path(config_dir)]
        line = explain(error, overrides, [*own, conf_dir()])
        if line is None:
            raise
        # Of a mistake in the choices the line says all; a notebook shows Hydra's long ways otherwise.
        said = isinstance(error, ConfigCompositionException | OverrideParseException)
        raise ConfigError(line) from (None if said else error)


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The error itself or what raised it, if that is of a kind."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = seen.__cause__
    return None


def _missing_option(error: MissingConfigException, folders: Sequence[Path]) -> str:
    group, _, name = str(error.missing_cfg_file).partition("/")
    if group == "hydra":
        group, _, name = str(error.missing_cfg_file).rpartition("/")
    known = [name for name in error.options or () if not name.startswith("_")]
    known = known or [option.name for option in options(group, folders)]
    if not known:
        return _first_line(error)
    if not name:
        return f"{group}=: choose one of {', '.join(known)}"
    near = nearest(name, known)
    line = f"{group}={name} is unknown; " + (f"did you mean {near}? " if near else "")
    if group == "backbone" and "timm" in known:
        line += f"Any network of timm is backbone=timm backbone.name={name}. "
    return f"{line}There are: {', '.join(known)}" if near else f"{line}there are: {', '.join(known)}"


def _unreadable(error: OverrideParseException, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    override = str(error.override or _first_unreadable(overrides))
    if Path(override).is_dir():
        root = shlex.quote(as_override("datamodule.root", override))
        return f"'{override}' is not of the form key=value; a folder of images is datamodule=folder {root}"
    if "=" not in override:
        for group in GROUPS:
            if override in {option.name for option in options(group, folders)}:
                return f"'{override}' is not of the form key=value; did you mean {group}={override}?"
        return f"'{override}' is not of the form key=value, such as strategy=full or optimizer.lr=0.01"
    key, _, value = override.partition("=")
    if re.search(r"\s", key):
        return f"'{override}' cannot be read: a key has no spaces"
    bare = value if value[:1] not in "'\"" or value[:1] != value[-1:] or len(value) < 2 else value[1:-1]
    quoted = bare.replace("\\", "\\\\").replace('"', '\\"')
    whole = shlex.quote(f'{key}="{quoted}"')
    return (
        f"'{override}' cannot be read; a value with spaces, commas, brackets, equals signs, # or $ needs quotes "
        f"inside quotes: {whole}"
    )


def _first_unreadable(overrides: Sequence[str]) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in overrides:
        try:
            OverridesParser.create().parse_override(override)
        except OverrideParseException:
            return override
    return " ".join(overrides)


def _composition(error: HydraException, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    message = str(error)
    if re.search(r"@experiment\.", message):
        return EXPERIMENT_OUT_OF_PLACE
    if found := re.search(r"Could not override '([^']+)'", message):
        return _unknown_key(found[1], overrides, folders)
    if found := re.search(r"Ambiguous value for argument '(.+)'\n", message):
        return _several(found[1])
    if found := re.search(r"Sweep parameters '(.+)' requires", message):
        return found[1] + _EACH
    if found := re.search(r"Could not delete(?: from config)?\. '([^']+)'", message):
        return f"~{found[1]}: there is no {found[1]} to remove{suggestion(found[1], _valid_keys([], folders))}"
    if found := re.search(_TWICE, message):
        key = found[1] or found[2] or found[3]
        return f"+{key}: {key} is there already; leave out the +"
    return _first_line(error)


def _unknown_key(key: str, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    if key.startswith("hydra"):
        return f"{key} is none of Hydra's own settings; see --hydra-help"
    given = next((item for item in overrides if item.lstrip("+~").partition("=")[0] == key), f"{key}=...")
    if key in REMOVED:
        return f"{key} is no key any more: {REMOVED[key]}"
    if key in GROUPS:
        return f"{given}: {key} is a group; choose one of its files by name, or set one of its keys: {key}.<key>=value"
    if owners := _owners(key, folders):
        return f"{key} is unknown here; it belongs to {' or '.join(owners)}"
    valid = _valid_keys(overrides, folders)
    parent = key.rpartition(".")[0]
    if parent in valid and not any(name.startswith(f"{parent}.") for name in valid):
        return f"{given}: {parent} is a single value, not a group of keys"
    hint = (
        nearest(key, [name for name in valid if name.startswith(f"{key.partition('.')[0]}.")]) if "." in key else None
    )
    hint = hint or nearest(key, [*valid, *GROUPS])
    value = given.partition("=")[2]
    if "." not in key and hint not in GROUPS and (hint or "").rpartition(".")[2] != key:
        groups = [group for group in GROUPS if value in {option.name for option in options(group, folders)}]
        hint = f"{groups[0]}={value}" if len(groups) == 1 else hint
    return f"{key} is unknown; did you mean {hint}?" if hint else f"{key} is unknown; `--help` lists what there is"


def _owners(key: str, folders: Sequence[Path]) -> list[str]:
    """Choices of the key's group, as one gives them, whose files have the key."""
    group, _, name = key.partition(".")
    if group not in GROUPS:
        return []
    found = []
    for option in options(group, folders):
        file = next(path for folder in folders if (path := folder / group / f"{option.name}.yaml").is_file())
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and name in content:
            found.append(f"{group}={option.name}")
    return found


def _valid_keys(overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Every key there is with the groups that were chosen."""
    groups = [item for item in overrides if item.lstrip("+").partition("=")[0] in GROUPS and "," not in item]
    for chosen in (groups, []):
        try:
            keys = leaves(plain_unresolved(compose(chosen, config_dir=folders[0] if len(folders) > 1 else None)))
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
        parents = {key.rpartition(".")[0] for key in keys if key.count(".") > 1}
        return [*keys, *sorted(parents - set(keys))]
    return []


_PLACES = frozenset({"root", "manifest", "weights", "teacher", "output_dir", "cache_dir", "data_dir"})
"""Last parts of keys whose value is a path, and never a list."""


_EACH = " gives several values: add -m to run each of them (from Python: headstart.sweep)"


def _several(given: str) -> str:
    key, _, value = given.partition("=")
    if key.rpartition(".")[2] in _PLACES:
        quoted = shlex.quote(f'{key}="{value}"')
        return f"{given}{_EACH}, or write {quoted} for one with a comma"
    as_list = "" if key in GROUPS and key != "logger" else f", or write {key}=[{value}] for one list"
    return given + _EACH + as_list


def _no_name(overrides: Sequence[str], folders: Sequence[Path]) -> str:
    for override in overrides:
        key = override.partition("=")[0]
        if key in GROUPS:
            return f"{override}: choose one of {', '.join(option.name for option in options(key, folders))}"
        if not key:
            return f"{override}: the key before the equals sign is missing"
    return "a group needs the name of one of its files, such as strategy=full; `--help` lists them"


def _instantiation(error: InstantiationException) -> str:
    """``Error in call to target 'x.Y': TypeError(...)`` in one line, with the key where Hydra names it."""
    text = " ".join(str(error).split())
    found = re.search(r"Error in call to target '([^']+)': ?(\w+)\((.*?)\)(?: full_key: (\S+))?$", text)
    if not found:
        return text
    target, kind, message, key = found.groups()
    where = f"{key} " if key else ""
    return f"{where}{target.rpartition('.')[2]} does not take these choices: {kind}: {message.strip(chr(34) + chr(39))}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
