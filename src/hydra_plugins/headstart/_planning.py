"""From a job's overrides to a job that is decided, or to what is wrong with it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict

from headstart.launch.jobs import Job
from headstart.system.console import show
from hydra_plugins.headstart._composing import SweepComposer

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

    composer = SweepComposer(loader, config)
    known: dict[str, dict[str, str]] = {}

    def plan(place: int, overrides: list[str]) -> Job:
        job = Job(first + place, label or _label(overrides, common), (*fixed, *overrides), None)
        return _decided(job, composer, config, overrides, known)

    rows = [list(row) for row in batch]
    jobs = [plan(place, row) for place, row in enumerate(rows)]
    sound = {tuple(row) for row, job in zip(rows, jobs, strict=True) if job.run is not None}
    if len(rows) > 1 and len(sound) < len(rows):
        kept = without_absent_keys(rows, lambda row: None if tuple(row) in sound else _absent_key(composer, row))
        jobs = [job if kept[place] == rows[place] else plan(place, kept[place]) for place, job in enumerate(jobs)]
    return jobs


def without_absent_keys(rows: Sequence[list[str]], absent_key: Callable[[list[str]], str | None]) -> list[list[str]]:
    """A key that some jobs of a sweep have not is set where it is, as ``head.refit=false`` for one head of two.

    A key that no job has is left for the message of each.

    Args:
        rows: the overrides of each job.
        absent_key: the first key among a job's overrides that its configuration has not.
    """
    kept = [list(row) for row in rows]
    left_out: dict[str, list[int]] = {}
    nowhere: set[str] = set()
    while absent := {place: key for place, row in enumerate(kept) if (key := absent_key(row)) and key not in nowhere}:
        for key in dict.fromkeys(absent.values()):
            places = [place for place, found in absent.items() if found == key]
            if len(places) + len(left_out.get(key, ())) == len(kept):
                nowhere.add(key)
                continue
            left_out.setdefault(key, []).extend(places)
            for place in places:
                kept[place] = [item for item in kept[place] if item.partition("=")[0] != key]
    for key in nowhere & set(left_out):
        for place in left_out.pop(key):
            kept[place] = [item for item in rows[place] if item in kept[place] or item.partition("=")[0] == key]
    for key, places in left_out.items():
        show(f"{key} is left out of {len(places)} of {len(kept)} runs, which have no such key")
    return kept


def _absent_key(composer: SweepComposer, overrides: list[str]) -> str | None:
    try:
        composer.compose(overrides)
    except ConfigCompositionException as error:
        # Hydra has no other word for it than this message.
        found = re.match(r"Could not override '([^']+)'", str(error))
        return found and found.group(1)
    except Exception:
        return None  # Another mistake, which the job's own plan will tell.
    return None


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


def _decided(
    job: Job, composer: SweepComposer, config: DictConfig, overrides: list[str], known: dict[str, dict[str, str]]
) -> Job:
    """A job with its run, or with its problem."""
    from headstart.config import resolve_run
    from headstart.config.explain import explain
    from headstart.launch.study_weights import remembered_weights

    try:
        composed = composer.compose(overrides)
        with open_dict(composed):
            composed.hydra.mode = "RUN"
            composed.hydra.job.id, composed.hydra.job.num = str(job.number), job.number
        study = Path(str(composed.paths.output_dir)).expanduser() / str(composed.name)
        with remembered_weights(study, OmegaConf.to_container(composed.backbone, resolve=True)) as remember:
            run = resolve_run(composed, known)
            remember(run.weights.choice)
    except Exception as error:
        problem = explain(error, overrides, _folders(config)) or f"{type(error).__name__}: {error}"
        return replace(job, label=job.label or "the only job", problem=problem)
    return replace(job, label=job.label or run.key, run=run)


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
