"""Where the configuration folder lies and what it offers, read from its files without Hydra."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from headstart.errors import ConfigError

CONFIG_NAME = "train"

GROUPS = {
    "backbone": "the pretrained network",
    "head": "what turns its features into outputs",
    "strategy": "which parameters learn, when and how fast",
    "datamodule": "the images",
    "optimizer": "how parameters are updated",
    "scheduler": "the learning rate over the epochs",
    "trainer": "epochs, devices, precision",
    "logger": "where metrics go besides metrics.csv; several: logger=[tensorboard,wandb]",
    "callbacks": "checkpoints, early stopping, progress",
    "batch_transform": "training images mixed with each other",
    "cache": "stored activations of frozen stages",
    "experiment": "ready-made combinations; anything else can still be changed",
    "paths": "results, downloads and caches",
}


class Option(NamedTuple):
    """One YAML file of a group.

    Attributes:
        name: as it is chosen.
        description: the first line of its header comment, or an empty text.
    """

    name: str
    description: str


def conf_dir() -> Path:
    """The folder of YAML files: beside the installed package, or at the root of a checkout.

    Raises:
        ConfigError: neither is there; the installation is damaged.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent.parent / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise ConfigError(f"the conf folder is missing beside {package}; install Headstart again")


def options(group: str, folders: Iterable[Path]) -> list[Option]:
    """The options of a group in all folders, by name; the first folder that has a name describes it.

    A file whose name starts with ``_`` is a part of others.
    """
    found: dict[str, Option] = {}
    for folder in folders:
        root = folder / group
        for path in root.rglob("[!_]*.yaml") if root.is_dir() else ():
            name = path.relative_to(root).with_suffix("").as_posix()
            found.setdefault(name, Option(name, describe(path)))
    return sorted(found.values(), key=lambda option: option.name)


def describe(path: Path) -> str:
    """The first line of a YAML file's header comment that says something to people."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            text = line.strip()
            if text.startswith("#"):
                comment = text.lstrip("# ").strip()
                if comment and not comment.startswith("@package"):
                    return comment
            elif text:
                return ""
    return ""
