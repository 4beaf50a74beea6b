"""From a composed configuration to one run: every ``auto`` decided, a fingerprint, a readable key. No torch here."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from headstart.config.check import check, check_devices
from headstart.config.closed_form import NOT_USED, decide_refit, is_closed_form, set_aside
from headstart.config.compose import chosen, hydra_node, plain, reference
from headstart.config.precision import trains_depthwise
from headstart.config.schema import marked, not_in_result
from headstart.config.settings import RunSettings
from headstart.config.strategy import strategy_of
from headstart.config.views import decided_views
from headstart.config.weights import resolve_backbone_weights, weights_content
from headstart.data.scan import content_digest, folders_sort_by_number
from headstart.errors import ConfigError
from headstart.runs.directory import RunDirectory
from headstart.runs.reader import find_finished, outcome
from headstart.system.digests import digest
from headstart.system.folders import nearest_existing, user_cache_dir
from headstart.system.hardware import detect, resolve_accelerator, resolve_devices, resolve_precision
from headstart.system.names import leaves
from headstart.system.options import Later

if TYPE_CHECKING:
    from headstart.weights.sources import ResolvedWeights

RESULTS_VERSION = 3
"""Raised when the same choices give another result than before, so that no earlier run is taken for a new one."""

_REVISIONS = {("head_init", "probe"): 3, ("task", "regression"): 2, ("task", "multilabel"): 2}
"""Single choices that give another result than before: only their runs are trained again."""

_STEPS_REVISION = 2
"""The same for heads that are trained in steps: of epochs that score alike the one with the lower loss is kept."""

_BY_NUMBER = {"classes": "by number"}
"""The same for data whose classes have another order by the numbers in their names: 2 before 10."""

_GROUPS_IN_KEY = ("datamodule", "backbone", "head", "strategy")
_KEY_LENGTH = 96
# Of a datamodule: what decides which files its content is.
_WHAT_IS_READ = ("_target_", "root", "manifest", "path_column", "mask_column", "extensions")
# Files beside images that make up a data set of these kinds.
_STORED: Mapping[str, tuple[str, ...]] = {
    "headstart.data.HuggingFace": (".arrow", ".parquet", ".json", ".jsonl", ".csv", ".zip", ".tar"),
    "headstart.data.WebDataset": (".tar",),
}
_LONGEST_NAME = 255  # bytes, on every usual file system


@dataclass(frozen=True)
class ResolvedRun:
    """One run, decided.

    Attributes:
        config: plain containers as ``config.yaml`` holds them; ``backbone.weights``, ``trainer.accelerator``,
            ``devices`` and ``precision`` are decided, folders are absolute.
        weights: what ``backbone.weights`` became; the backbone is built with it.
        choices: name of the chosen option of each group; several loggers are joined by ``+``.
        overrides: as given on the command line.
        fingerprint: digest of what changes the result.
        lineage: the same without ``trainer.max_epochs``: a run of the same lineage can be extended.
        key: readable, safe in a file name, a function of what changes the result.
    """

    config: dict[str, Any]
    weights: "ResolvedWeights"
    choices: dict[str, str]
    overrides: tuple[str, ...]
    fingerprint: str
    lineage: str
    key: str

    @cached_property
    def settings(self) -> RunSettings:
        """The choices as types, which is how everything but the configuration reads them."""
        return RunSettings.of(self.config)

    @property
    def study(self) -> str:
        """The study's name."""
        return self.settings.name

    @property
    def output_dir(self) -> str:
        """The folder that holds all studies."""
        return self.settings.paths.output_dir

    def directory(self) -> RunDirectory:
        """Its run directory, made if need be.

        Raises:
            HeadstartError: the study's name is no folder's, or the directory is another run's.
        """
        return RunDirectory.open(self.output_dir, self.study, self.key, self.fingerprint, rerun=self.settings.rerun)

    def flat(self) -> dict[str, Any]:
        """The ``config`` section of ``result.json``: names of the choices, seed, epochs, every override as given."""
        overrides = dict(item.lstrip("+~").partition("=")[::2] for item in self.overrides)
        return {
            **overrides,
            **self.choices,
            "seed": self.settings.seed,
            "max_epochs": self.settings.trainer.max_epochs,
            "study": self.study,
            "key": self.key,
            "overrides": list(self.overrides),
        }

    def record(self) -> dict[str, Any]:
        """What identifies the run, for its ``config.yaml``."""
        return {
            "results_version": RESULTS_VERSION,
            "fingerprint": self.fingerprint,
            "lineage": self.lineage,
            "choices": dict(self.choices),
            "overrides": list(self.overrides),
        }


def resolve_run(config: DictConfig, known: dict[str, dict[str, str]] | None = None) -> ResolvedRun:
    """Check a composed configuration and decide what it leaves open.

    Args:
        config: from Hydra's main function, or from :func:`headstart.config.compose`.
        known: what the runs that one command resolves share, so that it looks through a data set once: digests of
            content, filled here.

    Raises:
        ConfigError: unknown keys, wrong types, impossible combinations, absent devices or folders.
        WeightsError: the weights are not to be had.
        omegaconf.errors.OmegaConfBaseException: a required value or an interpolation is missing.
    """
    node = hydra_node(config)
    values = plain(config)
    made = {} if node is None else chosen(node, values)
    defaults = values if node is None else reference(node, made)
    overrides = () if node is None else tuple(str(item) for item in node.overrides.task)
    sweep = node is not None and str(node.get("mode")).endswith("MULTIRUN")
    check(values, defaults, added=_added(overrides), sweep=sweep, given=_given(overrides))
    choices = _names(made)
    if is_closed_form(values):
        values, defaults = set_aside(values), set_aside(defaults)
        decide_refit(values, defaults)
        choices |= {"optimizer": "none", "scheduler": "none"}
    strategy = strategy_of(values)
    _resolve_trainer(values["trainer"], slow_in_half=trains_depthwise(values, strategy))
    check_devices(values)
    _resolve_paths(values)
    if values["batchnorm"] == "auto":
        values["batchnorm"] = "train" if strategy is None else strategy.usual_batchnorm
        defaults = {**defaults, "batchnorm": values["batchnorm"]}
    if values["cache"]["views"] == "auto":
        values["cache"]["views"] = decided_views(values, strategy)
        defaults = {**defaults, "cache": {**defaults["cache"], "views": values["cache"]["views"]}}
    scratch = strategy is not None and strategy.starts_from_random_weights
    weights = resolve_backbone_weights(values, scratch=scratch)
    values["backbone"]["weights"] = weights.choice
    described = _described(values, weights, {} if known is None else known)
    extendable = {key: value for key, value in described.items() if key != "trainer.max_epochs"}
    return ResolvedRun(
        config=values,
        weights=weights,
        choices=choices,
        overrides=overrides,
        fingerprint=digest({"results_version": RESULTS_VERSION, "choices": described}),
        lineage=digest({"results_version": RESULTS_VERSION, "choices": extendable}),
        key=readable_key(values, defaults, choices),
    )


def readable_key(config: Mapping[str, Any], defaults: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """``digits-resnet18-linear-freeze-s1-lr0.01``: the main choices, the seed, what differs from the YAML files."""
    root = config["datamodule"].get("manifest") or config["datamodule"].get("root")
    names = {group: choices.get(group, group) for group in _GROUPS_IN_KEY}
    if root:
        names["datamodule"] = Path(root).stem if config["datamodule"].get("manifest") else Path(root).name
    if config["backbone"].get("name"):
        names["backbone"] = str(config["backbone"]["name"]).rpartition("/")[2]
    parts = [_safe(names[group]) for group in _GROUPS_IN_KEY]
    parts.append(f"s{config['seed']}")
    for part in _notable(config, defaults, choices):
        if len("-".join(parts)) + 1 + len(part) > _KEY_LENGTH:
            break
        parts.append(part)
    return "-".join(parts)[:_KEY_LENGTH].rstrip("-.")


def _notable(config: Mapping[str, Any], defaults: Mapping[str, Any], choices: Mapping[str, str]) -> Iterator[str]:
    """What else a reader would ask for, in a fixed order: other optimizer and schedule, then changed values."""
    for group, usual in (("optimizer", "adamw"), ("scheduler", "cosine")):
        if choices.get(group, usual) != usual and config[group] != NOT_USED:
            yield _safe(choices[group])
    usual_values, hidden = leaves(defaults), not_in_result(config)
    for key, value in sorted(leaves(config).items()):
        skip = (
            "backbone.name",
            "datamodule.manifest",
            "datamodule.root",
            "seed",
            "trainer.accelerator",
            "trainer.devices",
            "trainer.precision",
        )
        if key in skip or key.endswith("_target_") or _matches(key, hidden):
            continue
        if key == "backbone.weights" and (usual_values.get(key) in {"auto", value} or value == "none"):
            continue
        usual = usual_values.get(key, "")
        if (key in usual_values and value == usual) or "${" in str(usual):
            continue
        if "/" in str(value):  # of a path, its last part
            value = Path(value).stem if key == "backbone.weights" else Path(value).name
        yield f"{_safe(key.rpartition('.')[2])}{_safe(value)}"


def _described(
    config: Mapping[str, Any], weights: "ResolvedWeights", known: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """The choices that change the result; data and weights as digests of their content."""
    hidden, later = not_in_result(config), marked(Later, config)
    described = {
        key: value
        for key, value in leaves(config).items()
        if not _matches(key, hidden) and not (key in later and value == later[key].earlier)
    }
    for (key, value), revision in _REVISIONS.items():
        if described.get(key) == value:
            described[key] = [value, revision]
    if not is_closed_form(config):
        described["steps"] = _STEPS_REVISION
    described["backbone.weights"] = weights_content(weights)
    for prefix, datamodule in _datamodules(config).items():
        place = digest({name: datamodule.get(name) for name in _WHAT_IS_READ})
        if place not in known:
            known[place] = _data_content(datamodule)
        described |= {f"{prefix}.{name}": content for name, content in known[place].items()}
        if config["task"] == "regression":
            described.pop(f"{prefix}.classes", None)
    for name, run in _references(config).items():
        described[f"strategy.{name}"] = outcome(Path(run))
    return described


def _references(config: Mapping[str, Any]) -> dict[str, str]:
    """Other runs that the strategy refers to, by the names of its fields."""
    strategy = strategy_of(config)
    named = {} if strategy is None else strategy.references
    return {name: run for name, run in named.items() if name in config["strategy"]}


def _datamodules(config: Mapping[str, Any]) -> dict[str, Any]:
    """The run's datamodule and those of further tasks, by their keys."""
    others = {f"sources.{name}.datamodule": source["datamodule"] for name, source in config["sources"].items()}
    return {"datamodule": config["datamodule"], **others}


def _data_content(datamodule: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the images and of the table that lists them; none of data that are in a package."""
    if datamodule.get("manifest"):
        from headstart.data.manifest import listed_paths, sorts_by_number

        table, columns = datamodule["manifest"], (datamodule["path_column"], datamodule.get("mask_column"))
        found = {
            "root": content_digest(datamodule["root"], listed_paths(table, *columns)),
            "manifest": content_digest(table),
        }
        return found | (_BY_NUMBER if sorts_by_number(table, columns[0]) else {})
    if root := datamodule.get("root"):
        found = {"root": content_digest(root, extensions=_extensions(datamodule))}
        return found | (_BY_NUMBER if folders_sort_by_number(root) else {})
    return {}


def _extensions(datamodule: Mapping[str, Any]) -> Sequence[str]:
    from headstart.data.scan import IMG_EXTENSIONS

    if own := _STORED.get(str(datamodule["_target_"])):
        return (*IMG_EXTENSIONS, *own)
    return datamodule.get("extensions") or IMG_EXTENSIONS


def _resolve_trainer(trainer: dict[str, Any], *, slow_in_half: bool) -> None:
    hardware = detect()
    trainer["accelerator"] = resolve_accelerator(trainer["accelerator"], hardware)
    trainer["devices"] = resolve_devices(trainer["devices"], trainer["accelerator"], str(trainer["strategy"]), hardware)
    asked, accelerator = trainer["precision"], trainer["accelerator"]
    trainer["precision"] = resolve_precision(asked, accelerator, hardware, slow_in_half=slow_in_half)


def _resolve_paths(config: dict[str, Any]) -> None:
    paths = config["paths"]
    cache = Path(paths["cache_dir"]).expanduser() if paths["cache_dir"] else user_cache_dir()
    paths["cache_dir"] = str(cache.absolute())
    paths["data_dir"] = str(Path(paths["data_dir"] or cache / "data").expanduser().absolute())
    paths["output_dir"] = str(Path(paths["output_dir"]).expanduser().absolute())
    for name in ("output_dir", "cache_dir", "data_dir"):
        _check_folder(f"paths.{name}", Path(paths[name]))
    for name, run in _references(config).items():
        config["strategy"][name] = str(find_finished(run, key=f"strategy.{name}"))
    for prefix, datamodule in _datamodules(config).items():
        if "data_dir" in datamodule:
            datamodule["data_dir"] = datamodule["data_dir"] or paths["data_dir"]
        if datamodule.get("manifest"):
            _resolve_manifest(datamodule, prefix)
        if datamodule.get("root"):
            given = datamodule["root"]
            root = Path(given).expanduser().absolute()
            _check_folder(f"{prefix}.root", root)
            if not root.exists():
                raise ConfigError(
                    f"{prefix}.root={given}: there is no such folder; give the folder that holds the images"
                )
            datamodule["root"] = str(root)


def _check_folder(key: str, folder: Path) -> None:
    """A folder that there is, or that can be made where it should be."""
    long = next((part for part in folder.parts if len(os.fsencode(part)) > _LONGEST_NAME), None)
    if long is not None:
        raise ConfigError(f"{key}: {long[:40]}... has {len(long):,} characters, more than a name can have; shorten it")
    there = nearest_existing(folder)
    if not there.is_dir():
        raise ConfigError(f"{key}={folder}: {there} is no folder; give another")


def _resolve_manifest(datamodule: dict[str, Any], prefix: str) -> None:
    manifest = Path(datamodule["manifest"]).expanduser().absolute()
    _check_folder(f"{prefix}.manifest", manifest.parent)
    if not manifest.is_file():
        raise ConfigError(
            f"{prefix}.manifest={datamodule['manifest']}: there is no such file; give the table of images"
        )
    datamodule["manifest"] = str(manifest)
    datamodule["root"] = datamodule.get("root") or str(manifest.parent)


def _names(made: Mapping[str, Any]) -> dict[str, str]:
    return {
        group: "+".join(option) if isinstance(option, list) else str(option)
        for group, option in made.items()
        if option is not None
    }


def _given(overrides: Sequence[str]) -> frozenset[str]:
    return frozenset(item.lstrip("+").partition("=")[0] for item in overrides)


def _added(overrides: Sequence[str]) -> frozenset[str]:
    return frozenset(item.lstrip("+").partition("=")[0] for item in overrides if item.startswith("+"))


def _matches(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _safe(value: Any) -> str:
    """Letters, digits, ``_`` and ``.`` only."""
    text = "x".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text).strip("_.")
