"""Headstart: config-driven transfer-learning experiments on images.

::

    import headstart
    run = headstart.train("strategy=freeze", "trainer.max_epochs=2")
    print(run.metrics["test/acc"], run.load().predict("image.png").label)

Choices are written as on the command line. Importing this needs no torch; it comes with the first call that does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.config import ResolvedRun
    from headstart.execution.load import Model
    from headstart.execution.plan import Plan
    from headstart.execution.train import Run
    from headstart.ranking.advise import Advice
    from headstart.ranking.rank import Ranking
    from headstart.study.study import Study

__version__ = "0.2.0"
__all__ = ["__version__", "advise", "compose", "load", "plan", "rank", "sweep", "train"]


def train(*overrides: str, config_dir: str | Path | None = None) -> "Run":
    """Train one run, or return it where it is finished, as ``python train.py OVERRIDES`` does.

    Args:
        overrides: choices, such as ``"strategy=full"``.
        config_dir: a folder of your own YAML files, searched before the package's.

    Raises:
        HeadstartError: the choices, the data or the weights cannot be used, or the run failed.
    """
    from headstart.execution.train import train as train_run

    return train_run(_resolved(overrides, config_dir))


def sweep(*overrides: str, config_dir: str | Path | None = None) -> "Study":
    """Run a study, as ``python train.py -m OVERRIDES`` does: ``sweep("strategy=freeze,full", "seed=1,2,3")``.

    Args:
        overrides: choices; several values of one are separated by commas.
        config_dir: as for :func:`train`.

    Raises:
        HeadstartError: the same mistake is in every run, or some failed; the others are then complete.
    """
    from headstart.config.compose import multirun
    from headstart.config.explain import explained
    from headstart.study.study import Study

    with explained(overrides, config_dir):
        return Study(multirun(overrides, _job, config_dir=config_dir))


def load(run: str | Path) -> "Model":
    """The model of a finished run: ``load("outputs/study/run").predict(images)``.

    Args:
        run: its directory, or a folder that holds one finished run.

    Raises:
        RunError: there is no finished run, or a file of it is missing or damaged.
    """
    from headstart.execution.load import load as load_model
    from headstart.runs.reader import find_finished

    return load_model(find_finished(run))


def compose(*overrides: str, config_dir: str | Path | None = None) -> dict[str, Any]:
    """The configuration of these choices in plain containers, unchecked: what ``python train.py --cfg job`` prints.

    Args:
        overrides: choices.
        config_dir: as for :func:`train`.

    Raises:
        ConfigError: there is no such key, group or option.
    """
    from headstart.config import compose as composed
    from headstart.config.compose import plain
    from headstart.config.explain import explained

    with explained(overrides, config_dir):
        return plain(composed(overrides, config_dir=config_dir))


def plan(*overrides: str, config_dir: str | Path | None = None) -> "Plan":
    """What a run would do, without training: what learns, how fast, and the memory it takes. ``plan(...).show()``.

    Args:
        overrides: choices.
        config_dir: as for :func:`train`.

    Raises:
        HeadstartError: the choices, the data or the weights cannot be used; training would fail alike.
    """
    from headstart.execution.plan import plan_run

    return plan_run(_resolved(overrides, config_dir))


def rank(
    *overrides: str, backbones: Sequence[str] | None = None, by: str = "logistic", config_dir: str | Path | None = None
) -> "Ranking":
    """Score every network whose weights are to be had here on a data set: ``rank("datamodule=digits").rows()``.

    Args:
        overrides: choices, the data above all.
        backbones: only these networks; ``resnet18:none`` is one with other weights than ``auto``.
        by: the score that orders them.
        config_dir: as for :func:`train`.

    Raises:
        HeadstartError: the data cannot be used, or no network's weights are to be had.
    """
    from headstart.config.explain import explained
    from headstart.ranking.rank import rank as rank_networks

    with explained(overrides, config_dir):
        return rank_networks(overrides, backbones=backbones, by=by, config_dir=config_dir)


def advise(*overrides: str, budget: str = "10min", backbones: Sequence[str] | None = None) -> "Advice":
    """Recommend a backbone and a training for a data set: ``advise("datamodule=folder", "datamodule.root=PATH")``.

    Args:
        overrides: choices, the data above all.
        budget: time to use.
        backbones: only these networks.

    Raises:
        HeadstartError: the data cannot be used, or there is no network or no time to train anything.
    """
    from headstart.config.explain import explained
    from headstart.ranking.advise import advise as advise_on

    with explained(overrides):
        return advise_on(overrides, budget=budget, backbones=backbones)


def _resolved(overrides: Sequence[str], config_dir: str | Path | None) -> "ResolvedRun":
    from headstart.config import compose as composed
    from headstart.config import resolve_run
    from headstart.config.explain import explained

    with explained(overrides, config_dir):
        return resolve_run(composed(overrides, config_dir=config_dir))


def _job(config: Any) -> None:
    """What launchers call that keep the jobs of a sweep in this process."""
    from headstart.config import resolve_run
    from headstart.execution.train import train

    train(resolve_run(config))
