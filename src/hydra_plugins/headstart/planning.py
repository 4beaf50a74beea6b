"""From a job's overrides to a job that is decided, or to what is wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf, open_dict

from headstart.launch.jobs import Job

# What makes a command a sweep; a job's own command has none of it.
_OF_THE_SWEEP = ("hydra.mode", "hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep")


def plan_jobs(
    loader: ConfigLoader, config: DictConfig, batch: Sequence[Sequence[str]], *, first: int = 0, label: str = ""
) -> list[Job]:
    """Compose, check and fingerprint every job; a mistake in one is kept with it.

    Args:
        loader: of the running command.
        config: of the sweep.
        batch: the overrides of each job.
        first: number of the first job.
        label: what to call them; by default what distinguishes them from each other.
    """
    common = set.intersection(*(set(overrides) for overrides in batch)) if batch else set()
    fixed = single_run_arguments(config)
    return [
        _plan(loader, config, list(overrides), first + place, fixed, label or _label(overrides, common))
        for place, overrides in enumerate(batch)
    ]


def single_run_arguments(config: DictConfig) -> list[str]:
    """Hydra's switches and settings that the command of a single job needs too."""
    node = config.hydra
    own = [str(source.path) for source in node.runtime.config_sources if source.provider == "command-line"]
    arguments = ["--config-dir", own[0]] if own else []
    if node.job.config_name not in (None, "train"):
        arguments += ["--config-name", str(node.job.config_name)]
    return arguments + [str(item) for item in node.overrides.hydra if not _belongs_to_sweep(str(item))]


def on_one_machine(job: Job) -> Job:
    """A job as it is, or with the problem that it wants several machines of a launcher that has one."""
    if job.run is None or job.nodes == 1:
        return job
    problem = (
        f"trainer.num_nodes={job.nodes} needs a launcher with several machines: hydra/launcher=slurm; without a sweep, "
        "torchrun or srun start one run on all of them"
    )
    return replace(job, run=None, problem=problem)


def _plan(
    loader: ConfigLoader, config: DictConfig, overrides: list[str], number: int, fixed: list[str], label: str
) -> Job:
    from headstart.config import resolve_run
    from headstart.config.explain import explain
    from headstart.launch.study_weights import remembered_weights

    arguments = (*fixed, *overrides)
    try:
        composed = loader.load_sweep_config(config, overrides)
        with open_dict(composed):
            composed.hydra.mode = "RUN"
            composed.hydra.job.id, composed.hydra.job.num = str(number), number
        study = Path(str(composed.paths.output_dir)).expanduser() / str(composed.name)
        with remembered_weights(study, OmegaConf.to_container(composed.backbone, resolve=True)) as remember:
            run = resolve_run(composed)
            remember(run.weights.choice)
    except Exception as error:
        problem = explain(error, overrides, _folders(config)) or f"{type(error).__name__}: {error}"
        return Job(number, label or "the only job", arguments, None, problem)
    return Job(number, label or run.key, arguments, run)


def _label(overrides: Sequence[str], common: set[str]) -> str:
    return " ".join(item for item in overrides if item not in common and not item.startswith("hydra."))


def _folders(config: DictConfig) -> list[Path]:
    paths: Mapping[str, None] = {
        str(source.path): None for source in config.hydra.runtime.config_sources if source.schema == "file"
    }
    return [Path(path) for path in paths if Path(path).is_dir()]


def _belongs_to_sweep(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return any(key == name or key.startswith(f"{name}.") or key.startswith(f"{name}@") for name in _OF_THE_SWEEP)
