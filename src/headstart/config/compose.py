"""Where the configuration lies and how it is composed outside of Hydra's own command line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from headstart.config.switches import for_each_job
from headstart.system.catalog import CONFIG_NAME, conf_dir


def compose(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> DictConfig:
    """The configuration as the command line would compose it, for notebooks and tests.

    Args:
        overrides: as on the command line.
        config_dir: a folder of the user's own groups, searched before the package's.

    Returns: the configuration with its ``hydra`` node, which holds the choices that were made.
    """
    with _loader() as loader:
        return loader.load_configuration(CONFIG_NAME, overrides=_given(overrides, config_dir), run_mode=RunMode.RUN)


def multirun(
    overrides: Sequence[str], job: Callable[[DictConfig], Any], *, config_dir: str | Path | None = None
) -> Path:
    """Start a sweep as the command line would with ``-m``.

    Args:
        overrides: as on the command line, with several values separated by commas.
        job: what launchers call that keep a job in this process.
        config_dir: as for :func:`compose`.

    Returns: the folder of the study.
    """
    given = for_each_job(_given(overrides, config_dir))
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3", job_name="headstart"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        config = hydra.config_loader.load_configuration(CONFIG_NAME, overrides=given, run_mode=RunMode.MULTIRUN)
        folder = Path(str(config.paths.output_dir)).expanduser().absolute() / str(config.name)
        hydra.multirun(CONFIG_NAME, job, overrides=given, with_log_configuration=False)
        return folder


def _given(overrides: Sequence[str], config_dir: str | Path | None) -> list[str]:
    own = [] if config_dir is None else [_searchpath([str(Path(config_dir).resolve())])]
    return [*overrides, *own]


def hydra_node(config: DictConfig) -> DictConfig | None:
    """What Hydra recorded about this configuration: its own node, or that of the running job."""
    if "hydra" in config:
        return config.hydra
    if HydraConfig.initialized():
        return cast(DictConfig, HydraConfig.get())
    return None


def plain(config: Mapping[Any, Any]) -> dict[str, Any]:
    """Plain containers with every interpolation resolved, without Hydra's node.

    Raises:
        omegaconf.errors.MissingMandatoryValue: a required value was not given.
    """
    values = ((str(key), config[key]) for key in config if key != "hydra")
    return {
        key: OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value
        for key, value in values
    }


def chosen(node: DictConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """Name of the chosen option of each group, a list of names for loggers.

    Hydra does not record a choice of several options; of loggers it is found by what each of them adds to ``values``.
    """
    made = OmegaConf.to_container(node.runtime.choices)
    assert isinstance(made, dict)
    choices = {str(group): option for group, option in made.items() if not str(group).startswith("hydra")}
    if "logger" not in choices and values.get("logger"):
        with _loader(_sources(node)) as loader:
            known = set(loader.get_group_options("logger"))
        choices["logger"] = [name for name in values["logger"] if name in known]
    return choices


def reference(node: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """What the YAML files alone say for the choices that were made: no overrides of values, no experiment.

    Required values that have no default are None.
    """
    return _reference(
        str(node.job.get("config_name") or CONFIG_NAME),
        # A group at another place (datamodule@sources.NAME.datamodule) is not in the defaults list, but added to it.
        tuple(
            f"{'+' if '@' in group else ''}{group}={_option(option)}"
            for group, option in choices.items()
            if group != "experiment"
        ),
        _sources(node),
    )


@cache
def _reference(config_name: str, choices: tuple[str, ...], sources: tuple[str, ...]) -> dict[str, Any]:
    overrides = [*choices, _searchpath(sources[1:])] if len(sources) > 1 else list(choices)
    with _loader(sources) as loader:
        config = loader.load_configuration(config_name, overrides=overrides, run_mode=RunMode.RUN)
    return plain_unresolved(config)


def plain_unresolved(config: DictConfig) -> dict[str, Any]:
    """Plain containers as the YAML files have them, without Hydra's node; required values are None."""
    with open_dict(config):
        config.pop("hydra", None)
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, None)
    container = OmegaConf.to_container(config, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _searchpath(folders: Sequence[str]) -> str:
    quoted = ",".join("'file://" + folder.replace("'", "\\'") + "'" for folder in folders)
    return f"hydra.searchpath=[{quoted}]"


def _option(option: Any) -> str:
    if option is None:
        return "null"
    return f"[{','.join(option)}]" if isinstance(option, list) else str(option)


def _sources(node: DictConfig) -> tuple[str, ...]:
    """The folders of YAML files that a configuration was composed from: the main one, then the user's own."""
    given = [
        (str(source.provider), str(source.path)) for source in node.runtime.config_sources if source.schema == "file"
    ]
    main = [path for provider, path in given if provider == "main"] or [str(conf_dir())]
    return (*main, *(path for provider, path in given if provider != "main"))


@contextmanager
def _loader(sources: tuple[str, ...] = ()) -> Iterator[ConfigLoader]:
    """The running command's loader, which knows the user's own folders, or one for the package's folder."""
    if GlobalHydra.instance().is_initialized():
        yield GlobalHydra.instance().config_loader()
        return
    main = sources[0] if sources else str(conf_dir())
    with initialize_config_dir(config_dir=main, version_base="1.3", job_name="headstart"):
        yield GlobalHydra.instance().config_loader()
