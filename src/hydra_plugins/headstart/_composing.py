"""The configurations of a sweep's jobs, composed once for all that differ in plain values only."""

import pickle
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf


class SweepComposer:
    """Gives each job the configuration that Hydra would compose for it.

    Hydra reads and merges some eighty YAML files a job, which takes a quarter of a second. A plain value
    (``optimizer.lr=0.1``) is applied after all of them: of the jobs that differ in nothing else one is composed, and
    copies of it get the values.

    Args:
        loader: of the running command.
        config: of the sweep.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self._loader, self._config = loader, config
        self._parser = OverridesParser.create()
        self._composed: dict[tuple[str, ...], bytes] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of a job.

        Raises:
            hydra.errors.HydraException: as from Hydra, about this job's overrides.
        """
        parsed = self._parser.parse_overrides(list(overrides))
        plain = [item for item in parsed if self._is_plain(item)]
        others = [item for item in parsed if item not in plain]
        values = [item for item in others if not self._chooses(item)]  # added, removed, or a list or section
        if any(_overlap(item.key_or_group, other.key_or_group) for item in plain for other in values):
            return self._loader.load_sweep_config(self._config, list(overrides))  # Their order counts.
        rest = tuple(str(item.input_line) for item in others)
        if rest not in self._composed:
            self._composed[rest] = pickle.dumps(self._loader.load_sweep_config(self._config, list(rest)))
        config: DictConfig = pickle.loads(self._composed[rest])  # A copy, in a fifth of deepcopy's time.
        if not all(_is_value(config, item.key_or_group) for item in plain):
            return self._loader.load_sweep_config(self._config, list(overrides))
        for item in plain:
            OmegaConf.update(config, item.key_or_group, item.value())
        task = [str(item.input_line) for item in parsed if not item.is_hydra_override()]
        how = config.hydra.job.config.override_dirname
        named = [line for line in task if line.partition("=")[0] not in how.exclude_keys]
        config.hydra.overrides.task = task
        config.hydra.job.override_dirname = how.item_sep.join(sorted(named)).replace("=", how.kv_sep)
        return config

    def _is_plain(self, item: Override) -> bool:
        """Whether an override chooses no option of a group, adds and removes nothing, and has a scalar as its value."""
        if item.type is not OverrideType.CHANGE or item.is_sweep_override() or item.is_hydra_override():
            return False
        return not self._chooses(item) and isinstance(item.value(), bool | int | float | str | None)

    def _chooses(self, item: Override) -> bool:
        """Whether an override chooses an option of a group, which Hydra does before all values."""
        key = item.key_or_group
        return item.package is not None or "/" in key or key in self._config.hydra.runtime.choices


def _overlap(key: str, other: str) -> bool:
    """Whether one of two keys is the other or a part of it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _is_value(config: DictConfig, key: str) -> bool:
    """Whether there is a value at this key that another can replace; Hydra has rules and words for all else."""
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, section) if section else config
    if not isinstance(parent, DictConfig) or name not in list(parent.keys()):
        return False
    return (
        OmegaConf.is_missing(parent, name)
        or OmegaConf.is_interpolation(parent, name)
        or not OmegaConf.is_config(parent[name])
    )
