"""A search over choices with Optuna: every arm (a strategy, say) gets the same budget, so that none is tuned less."""

import csv
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from headstart.errors import ConfigError, RunError
from headstart.launch.jobs import Job, Outcome
from headstart.launch.pool import JobPool, Running, interruptible
from headstart.launch.progress import SweepProgress
from headstart.launch.space import Space
from headstart.launch.sweep import record
from headstart.runs.result import Result, higher_is_better, read_metrics_csv
from headstart.system.atomic import atomic_write
from headstart.system.console import show
from headstart.system.digests import digest
from headstart.system.locks import holding
from headstart.system.options import Above, AtLeast, check_fields

if TYPE_CHECKING:
    import optuna

STORAGE_FILE = "search.db"
TRIALS_FILE = "search.csv"
_LOCK_FILE = ".search.lock"
_MISTAKES_IN_A_ROW = 3
_OF_TASK = {"multilabel": "val/map", "segmentation": "val/miou", "regression": "val/loss"}


@dataclass(frozen=True)
class SearchSettings:
    """What a search looks for, and for how long.

    Attributes:
        objectives: names of metrics (``val/acc``, ``cost/fit_seconds``, ``params/trainable``) and their directions.
        budget: what every arm gets the same of.
        trials: for each arm.
        seconds: of the runs' own time, for each arm; the last trial may end later.
        sampler: of Optuna.
        pruner: on the validation metric of each epoch.
        seed: of the sampler.
    """

    objectives: Mapping[str, str]
    budget: Literal["trials", "seconds"] = "trials"
    trials: Annotated[int, AtLeast(1)] = 20
    seconds: Annotated[float, Above(0)] = 600.0
    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    pruner: Literal["median", "asha", "none"] = "median"
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields("hydra.sweeper", self)
        wrong = [name for name, way in self.objectives.items() if way not in ("maximize", "minimize")]
        if wrong or not self.objectives:
            raise ConfigError(
                f"hydra.sweeper.objectives={dict(self.objectives)}: each needs maximize or minimize, "
                'such as {"val/acc": maximize}'
            )
        if seen := [name for name in self.objectives if name.startswith("test/")]:
            raise ConfigError(
                f"hydra.sweeper.objectives names {', '.join(seen)}: what is chosen by the test images is no longer "
                "tested by them; search by a metric of validation, such as val/acc"
            )


class SearchArm:
    """One Optuna study: the trials of one strategy.

    Args:
        name: its override, or an empty text.
        study: Optuna's.
        settings: of the search.
    """

    def __init__(self, name: str, study: "optuna.Study", settings: SearchSettings) -> None:
        self.name = name
        self.study = study
        self.settings = settings
        self.in_flight = 0

    def recover(self) -> int:
        """Ask again what an earlier command was about when it ended; returns how many."""
        from optuna.trial import TrialState

        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)
        return len(running)

    @property
    def trials(self) -> list[Any]:
        """The trials that ended, in order."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if "outcome" in trial.user_attrs]

    @property
    def share(self) -> float:
        """How much of the budget is used; what runs now counts as one trial."""
        ended = self.trials
        if self.settings.budget == "trials":
            return (len(ended) + self.in_flight) / self.settings.trials
        return sum(trial.user_attrs["seconds"] for trial in ended) / self.settings.seconds

    @property
    def best(self) -> list[Any]:
        """The best trial, or for several objectives all that no other one beats."""
        return [trial for trial in self.study.best_trials if "outcome" in trial.user_attrs]


class Search:
    """Asks Optuna, runs, tells Optuna.

    Args:
        space: what there is to choose from.
        settings: of the search.
        folder: of the study.
        make_job: from a trial's overrides, its number and its label.
    """

    def __init__(
        self, space: Space, settings: SearchSettings, folder: Path, make_job: Callable[[list[str], int, str], Job]
    ) -> None:
        self.space, self.settings, self.folder = space, settings, folder
        self._make_job = make_job
        self._flight: dict[int, tuple[SearchArm, optuna.Trial]] = {}
        self._asked = self._mistakes = 0
        self._distributions = {dimension.key: dimension.distribution() for dimension in space.dimensions}
        self.arms: list[SearchArm] = []
        self.outcomes: list[Outcome] = []

    def run(self, pool: JobPool) -> None:
        """Search until every arm's budget is used; what an earlier command did counts.

        Args:
            pool: what runs the trials.

        Raises:
            ConfigError: one trial after the other is impossible.
            RunError: another search works on the same study.
            KeyboardInterrupt: the user stopped it; the same command goes on.
        """
        with only_one(self.folder), pool, interruptible(pool):
            self.arms = open_arms(self.space, self.settings, self.folder)
            again = sum(arm.recover() for arm in self.arms)
            before = sum(len(arm.trials) for arm in self.arms)
            show(f"{before} trials are there already{f', {again} to go on with' if again else ''}")
            total = self.settings.trials * len(self.arms) - before if self.settings.budget == "trials" else None
            with SweepProgress(pool, total) as progress:
                try:
                    self._loop(pool, progress)
                except KeyboardInterrupt:
                    progress.stop()
                    raise
                finally:
                    self.outcomes = progress.outcomes
                    write_trials(self.folder / TRIALS_FILE, self.arms, self.settings)
                    record(self.outcomes)

    def _loop(self, pool: JobPool, progress: SweepProgress) -> None:
        while True:
            while len(self._flight) < pool.n_jobs and self._ask(pool):
                pass
            if not pool.busy:
                return
            for outcome in pool.step():
                self._tell(outcome)
                progress.ended(outcome)
            for running in list(pool.running.values()):
                self._watch(pool, running)
            progress.tick()

    def _ask(self, pool: JobPool) -> bool:
        arm = min(self.arms, key=lambda arm: (arm.share, arm.in_flight))
        if arm.share >= 1:
            return False
        trial = arm.study.ask(self._distributions)
        number, self._asked = self._asked, self._asked + 1
        overrides = self.space.overrides(arm.name, trial.params)
        label = " ".join(item for item in overrides if item not in self.space.fixed)
        self._flight[number] = (arm, trial)
        arm.in_flight += 1
        pool.add(self._make_job(overrides, number, label))
        return True

    def _watch(self, pool: JobPool, running: Running) -> None:
        """Hand new epochs to the pruner."""
        trial = self._flight[running.job.number][1]
        if running.stop is not None or not self._pruning:
            return
        if self._lags(trial, running.job):
            epochs = len(_rows(running.job))
            why = f"stopped after {epochs} of {running.job.max_epochs} epochs: others were better by then"
            pool.stop(running.job.number, Outcome(running.job, "pruned", why))

    def _lags(self, trial: "optuna.Trial", job: Job) -> bool:
        """Report the epochs that are new; whether the trial should stop by the last of them.

        The pruner is asked after every epoch, also of a trial that has ended: so it learns what is usual.
        """
        [name] = self.settings.objectives
        known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        lags = False
        for row in _rows(job):
            step, value = int(row["epoch"] or 0) + 1, row.get(name)
            if step not in known and isinstance(value, float):
                trial.report(value, step)
                lags = trial.should_prune() or lags
        return lags

    @property
    def _pruning(self) -> bool:
        return self.settings.pruner != "none" and len(self.settings.objectives) == 1

    def _tell(self, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        arm, trial = self._flight.pop(outcome.job.number)
        arm.in_flight -= 1
        if outcome.kind == "interrupted":
            return  # Optuna still takes it for running; the next command asks for it again.
        values = _values(outcome.result, self.settings.objectives)
        state = (
            TrialState.PRUNED
            if outcome.kind == "pruned"
            else TrialState.FAIL
            if any(value is None for value in values)
            else TrialState.COMPLETE
        )
        if self._pruning and outcome.job.run is not None and outcome.attempts:
            self._lags(trial, outcome.job)
        trial.set_user_attr("seconds", _seconds(outcome))
        trial.set_user_attr("outcome", outcome.message or ("done" if state == TrialState.COMPLETE else "not a number"))
        trial.set_user_attr("run", outcome.job.directory.path.name if outcome.job.run is not None else "")
        arm.study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)  # type: ignore[arg-type]
        self._mistakes = self._mistakes + 1 if outcome.kind == "config" else 0
        if self._mistakes == _MISTAKES_IN_A_ROW:
            raise ConfigError(outcome.message)


def open_arms(space: Space, settings: SearchSettings, folder: Path) -> list[SearchArm]:
    """An Optuna study for each arm, in one SQLite file in the study's folder; the same question goes on."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    storage = open_storage(folder / STORAGE_FILE)
    question = digest({"fixed": sorted(space.fixed), "space": [repr(d) for d in space.dimensions]})[:8]
    goals = ",".join(f"{name}:{way}" for name, way in settings.objectives.items())
    arms = []
    for arm in space.arms:
        study = optuna.create_study(
            study_name=f"{arm or 'all'} {goals} {question}",
            storage=storage,
            directions=[optuna.study.StudyDirection[way.upper()] for way in settings.objectives.values()],
            load_if_exists=True,
        )
        # A sampler that starts again with the same seed would ask the same questions again.
        study.sampler = _sampler(settings, settings.seed + len(study.get_trials(deepcopy=False)))
        study.pruner = _pruner(settings)
        arms.append(SearchArm(arm, study, settings))
    return arms


def open_storage(path: Path) -> "optuna.storages.BaseStorage":
    """Optuna's storage in a SQLite file."""
    import optuna

    return optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})


def usual_objectives(task: str, monitor: str | None) -> dict[str, str]:
    """What a search looks for where nothing else is said: the metric of validation that chooses checkpoints.

    Args:
        task: of the runs; ``auto`` is some kind of classes. Of numbers it is the loss, which orders as their errors do.
        monitor: ``callbacks.checkpoint.monitor``.
    """
    name = monitor or _OF_TASK.get(task, "val/acc")
    return {name: "maximize" if higher_is_better(name) else "minimize"}


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the study against another search.

    Raises:
        RunError: there is one.
    """
    with holding(folder / _LOCK_FILE, wait=False) as alone:
        if not alone:
            raise RunError(f"another search works in {folder}; wait for it, or give this one another `name`")
        yield


def write_trials(path: Path, arms: Sequence[SearchArm], settings: SearchSettings) -> None:
    """Write every trial as a row of a CSV file."""
    names = sorted({name for arm in arms for trial in arm.trials for name in trial.params})
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arm", "trial", "state", *settings.objectives, "seconds", *names, "run", "outcome"])
        for arm in arms:
            for trial in arm.trials:
                values = trial.values if trial.values is not None else [""] * len(settings.objectives)
                told = trial.user_attrs
                chosen = [trial.params.get(name, "") for name in names]
                row = [arm.name, trial.number, trial.state.name, *values, round(told["seconds"], 3), *chosen]
                writer.writerow([*row, told["run"], told["outcome"]])


def _rows(job: Job) -> list[dict[str, float | str | None]]:
    path = job.directory.metrics_file
    return read_metrics_csv(path) if path.exists() else []


def _seconds(outcome: Outcome) -> float:
    """What a trial takes of its arm's budget: the run's own time, also where it was asked for before."""
    if outcome.result is not None:
        return outcome.result.cost.total_seconds
    if not outcome.returned or outcome.job.run is None:
        return outcome.seconds
    # Never nothing: where all that there is to try has failed, a search by time would not end.
    return max(1.0, outcome.job.directory.cost().total_seconds)


def _values(result: Result | None, objectives: Mapping[str, str]) -> list[float | None]:
    return [None if result is None else objective_value(result, name) for name in objectives]


def objective_value(result: Result, name: str) -> float | None:
    """A metric, a cost or a number of parameters by its flat name; None where it is not a number.

    Raises:
        ConfigError: the run has nothing of this name.
    """
    group = name.partition("/")[0]
    known: Mapping[str, Any] = result.metrics
    if group == "cost":
        known = {f"cost/{field}": value for field, value in vars(result.cost).items() if field != "device"}
    elif group == "params":
        known = {f"params/{field}": value for field, value in result.params.items()}
    if name not in known:
        raise ConfigError(f"hydra.sweeper.objectives has {name}, but a run has {', '.join(sorted(known))}")
    value = known[name]
    return float(value) if value is not None and math.isfinite(value) else None


def _sampler(settings: SearchSettings, seed: int) -> "optuna.samplers.BaseSampler":
    from optuna import samplers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Options that Optuna calls experimental.
        if settings.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if settings.sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed)
        return samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(4, settings.trials // 3)))


def _pruner(settings: SearchSettings) -> "optuna.pruners.BasePruner":
    from optuna import pruners

    if settings.pruner == "none" or len(settings.objectives) > 1:
        return pruners.NopPruner()
    if settings.pruner == "asha":
        return pruners.SuccessiveHalvingPruner()
    return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
