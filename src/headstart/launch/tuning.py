"""Equal chances: each arm of a sweep gets the same number of trials before it is compared (``study.protocol=tuned``).

An arm is what the sweep combines beside its replicates (seeds, splits, folds). The trials of an arm are scored on
validation only, in a study of their own; what is best there is used for all replicates of the comparison. How much the
budget matters is told as expected validation performance (Dodge et al. 2019, Show Your Work, eq. 3).
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from headstart.errors import ConfigError, RunError
from headstart.launch.jobs import Job, Outcome
from headstart.launch.sweep import check_jobs, run_sweep, show_plan, show_summary
from headstart.study.tuning import Point, Trial, add_tuning, best_trial, edges, space_points, tuning_record
from headstart.system.console import duration, number, plain_table, show

REPLICATES = ("seed", "datamodule.split_seed", "datamodule.fold")
"""Keys whose values repeat an arm instead of making another one."""

Row = tuple[str, ...]
"""Overrides of one job."""


@dataclass(frozen=True)
class Budgeted:
    """What gets a budget of its own.

    Attributes:
        overrides: of its jobs, without those of the replicates.
        label: those by which it differs from the other arms.
        strategy: its name.
        rows: its jobs' overrides, in order.
        points: what its trials try; a single empty one where nothing of the space concerns it.
    """

    overrides: Row
    label: str
    strategy: str
    rows: tuple[Row, ...]
    points: tuple[Point, ...]

    @property
    def tunable(self) -> bool:
        """Whether there is anything to choose between."""
        return len(self.points) > 1


def tuned_jobs(jobs: Sequence[Job], batch: Sequence[Sequence[str]], launcher: Any) -> list[Job]:
    """Run the trials of every arm, and give each job its arm's best values.

    Args:
        jobs: of the sweep as they were given; with ``plan=true`` the trials are only shown.
        batch: their overrides.
        launcher: plans jobs and makes the pool that runs them.

    Returns: the jobs of the comparison, in the order of ``batch``.

    Raises:
        ConfigError: nothing to tune, or a space that cannot be.
        RunError: an arm has no trial that ended well.
    """
    arms = find_arms(jobs, batch)
    rows, places = trial_rows(jobs, arms)
    trials = launcher.plan(rows)
    check_jobs(trials)
    show(_opening(arms, len(rows)))
    if any(job.run is not None and job.run.settings.plan for job in jobs):
        show_plan(trials)
        show("Then, with what is best for each arm:")
        return list(jobs)
    outcomes = run_sweep(trials, launcher.pool())
    show_summary(outcomes)
    found = {arm.overrides: _trials(arm, places, outcomes) for arm in arms if arm.tunable}
    metric = next((name for name, _ in (outcome.monitor for outcome in outcomes) if name), "")
    best = {arm: _best(arm, trials, metric) for arm, trials in found.items()}
    _show_choices(arms, found, best, metric)
    folder = _sound(jobs).study_dir
    folder.mkdir(parents=True, exist_ok=True)
    told = [(arm.label, arm.strategy, found.get(arm.overrides, ())) for arm in arms]
    add_tuning(folder, tuning_record(told, metric, _trials_study(jobs)))
    chosen = {row: best[arm.overrides].point for arm in arms if arm.tunable for row in arm.rows}
    return list(launcher.plan([_with(tuple(row), dict(chosen.get(tuple(row), ())), mark=True) for row in batch]))


def find_arms(jobs: Sequence[Job], batch: Sequence[Sequence[str]]) -> list[Budgeted]:
    """The arms of a sweep with their trials, the same number for each that has something to tune.

    Raises:
        ConfigError: no arm has, or other metrics choose in some than in others.
    """
    groups: dict[Row, list[int]] = {}
    for place, row in enumerate(batch):
        if jobs[place].run is not None:
            groups.setdefault(tuple(item for item in row if _key(item) not in REPLICATES), []).append(place)
    common = set.intersection(*(set(row) for row in groups)) if groups else set()
    arms = []
    for overrides, members in groups.items():
        job = jobs[members[0]]
        arms.append(
            Budgeted(
                overrides,
                " ".join(item for item in overrides if item not in common) or job.resolved.key,
                job.resolved.choices["strategy"],
                tuple(tuple(batch[place]) for place in members),
                _points(job, given={_key(item) for item in overrides}),
            )
        )
    chosen = {_chosen_by(jobs[members[0]]): overrides for overrides, members in groups.items()}
    if len(chosen) > 1:
        first, second = (" ".join(overrides) for overrides in list(chosen.values())[:2])
        raise ConfigError(
            f"study.protocol=tuned compares arms by one metric, and that of '{first}' and '{second}' differs (task, "
            "callbacks.checkpoint.monitor); give a sweep for each"
        )
    sizes = [len(arm.points) for arm in arms if arm.tunable]
    if not sizes:
        raise ConfigError(
            "study.protocol=tuned has nothing to tune: study.tuning.space names no key that these runs have and that "
            "the command does not set"
        )
    budget = min(_sound(jobs).resolved.settings.study.tuning.trials, *sizes)
    return [_limited(arm, budget) for arm in arms]


def _chosen_by(job: Job) -> tuple[str, str | None]:
    settings = job.resolved.settings
    return settings.task, settings.callbacks.checkpoint.monitor


def trial_rows(jobs: Sequence[Job], arms: Sequence[Budgeted]) -> tuple[list[Row], dict[tuple[Row, Point], list[int]]]:
    """The overrides of every trial, and the places of each point's replicates among them."""
    replicates = _sound(jobs).resolved.settings.study.tuning.replicates
    name = _trials_study(jobs)
    rows: list[Row] = []
    places: dict[tuple[Row, Point], list[int]] = {}
    for arm in arms:
        for point in arm.points if arm.tunable else ():
            for row in arm.rows[:replicates]:
                places.setdefault((arm.overrides, point), []).append(len(rows))
                quiet = {"name": name, "callbacks.plots": "false", "study.protocol": "fixed"}
                rows.append(_with(row, {**dict(point), **quiet}))
    return rows, places


def _sound(jobs: Sequence[Job]) -> Job:
    """A job without a mistake; what is read of it is the same for all. A sweep of mistakes alone does not come here."""
    return next(job for job in jobs if job.run is not None)


def _trials_study(jobs: Sequence[Job]) -> str:
    return f"{_sound(jobs).resolved.study}-tuning"


def _points(job: Job, given: set[str]) -> tuple[Point, ...]:
    settings = job.resolved.settings
    space = settings.study.tuning.space
    name = job.resolved.choices["strategy"]
    # A head that is solved for takes no steps, and its optimizer is none.
    absent = ("optimizer.", "scheduler.", "trainer.max_epochs") if not settings.optimizer.target else ()
    return space_points(space, name, given=given, absent=absent)


def _limited(arm: Budgeted, budget: int) -> Budgeted:
    """With as many points as the budget allows: of a larger grid a random part (Bergstra and Bengio 2012)."""
    if not arm.tunable or len(arm.points) <= budget:
        return arm
    kept = sorted(random.Random(0).sample(range(len(arm.points)), budget))
    return Budgeted(arm.overrides, arm.label, arm.strategy, arm.rows, tuple(arm.points[place] for place in kept))


def _with(row: Row, values: Mapping[str, str], *, mark: bool = False) -> Row:
    """A job's overrides with further ones in the place of its own for the same keys."""
    if mark and values:
        values = {**values, "study.tuned": f"[{','.join(values)}]"}
    return (*(item for item in row if _key(item) not in values), *(f"{key}={value}" for key, value in values.items()))


def _trials(arm: Budgeted, places: Mapping[tuple[Row, Point], list[int]], outcomes: Sequence[Outcome]) -> list[Trial]:
    trials = []
    for point in arm.points:
        mine = [outcomes[place] for place in places[arm.overrides, point]]
        scores = [outcome.monitor[1] for outcome in mine]
        finite = tuple(score for score in scores if score is not None and math.isfinite(score))
        seconds = sum(outcome.result.cost.total_seconds if outcome.result else outcome.seconds for outcome in mine)
        runs = tuple(outcome.job.directory.path.name for outcome in mine if outcome.job.run is not None)
        trials.append(Trial(point, finite, len(finite) < len(mine), runs, seconds))
    return trials


def _best(arm: Row, trials: Sequence[Trial], metric: str) -> Trial:
    best = best_trial(trials, metric)
    if best is None:
        raise RunError(f"no trial of {' '.join(arm) or 'the study'} ended well, so nothing can be chosen for it")
    return best


def _opening(arms: Sequence[Budgeted], trials: int) -> str:
    budget = max(len(arm.points) for arm in arms)
    tunable = sum(arm.tunable for arm in arms)
    rest = f"; {len(arms) - tunable} have nothing to tune" if tunable < len(arms) else ""
    return f"Equal chances first: {budget} trials for each of {tunable} arms on validation ({trials} runs){rest}"


def _show_choices(
    arms: Sequence[Budgeted], found: Mapping[Row, Sequence[Trial]], best: Mapping[Row, Trial], metric: str
) -> None:
    table = plain_table("", "arm", *map(number, ("trials", "time", metric)), "chosen")
    warnings = []
    for arm in arms:
        if not arm.tunable:
            table.add_row(Text(arm.label), "0", "", "", "nothing to tune")
            continue
        trial = best[arm.overrides]
        chosen = " ".join(f"{key}={value}" for key, value in trial.point)
        spent = sum(each.seconds for each in found[arm.overrides])
        table.add_row(Text(arm.label), str(len(arm.points)), duration(spent), f"{trial.score:.4f}", Text(chosen))
        warnings += [
            f"{arm.label}: {key}={dict(trial.point)[key]} is at the edge of what was tried; "
            f"widen study.tuning.space.{arm.strategy}"
            for key in edges(arm.points, trial.point)
        ]
    show(table)
    for warning in warnings:
        show(Text(warning, style="yellow"))


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
