"""``hydra/launcher=process`` and ``fused``: each job of a sweep in a process of its own, or many heads in one."""

import atexit
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from headstart.launch.jobs import Job
    from headstart.launch.pool import JobPool

# What a job's process does with its arguments.
ENTRY = "headstart.commands.cli:train_main"


class ProcessLauncher(Launcher):
    """Runs each job as the command that would train it alone.

    Args:
        settings: :class:`headstart.launch.pool.PoolSettings`.
    """

    def __init__(self, **settings: Any) -> None:
        from headstart.config.compose import plain
        from headstart.launch.pool import PoolSettings

        self.settings = PoolSettings(**plain(settings))

    @property
    def everything_at_once(self) -> bool:
        """Whether nothing limits how many jobs there are at a time."""
        return False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a job is composed from."""
        self.hydra_context = hydra_context
        self.config = config

    def pool(self) -> "JobPool":
        """What runs the jobs."""
        from headstart.launch.pool import JobPool
        from headstart.launch.workers import Workers

        return JobPool(self.settings, Workers(ENTRY))

    def plan(self, batch: Sequence[Sequence[str]], first: int = 0, label: str = "") -> "list[Job]":
        """The jobs of a batch, decided; called by what distinguishes them, or by ``label``."""
        from hydra_plugins.headstart._planning import on_one_machine, plan_jobs

        jobs = plan_jobs(self.hydra_context.config_loader, self.config, batch, first=first, label=label)
        return [on_one_machine(job) for job in jobs]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch for a sweeper of Hydra's own: every job ends before the first failure is raised."""
        from headstart.errors import RunError
        from headstart.launch.sweep import run_sweep, show_summary

        outcomes = run_sweep(self.plan(job_overrides, initial_job_idx), self.pool())
        show_summary(outcomes)
        returns = []
        for overrides, outcome in zip(job_overrides, outcomes, strict=True):
            told = JobReturn(overrides=list(overrides), task_name="headstart")
            told.status = JobStatus.COMPLETED if outcome.done else JobStatus.FAILED
            told.return_value = outcome.monitor[1] if outcome.done else RunError(outcome.message)
            returns.append(told)
        return returns


class FusedLauncher(ProcessLauncher):
    """Trains the heads of jobs over one frozen backbone together, the other jobs as :class:`ProcessLauncher` does.

    Args:
        plots: draw the pictures of runs that are trained together, where ``callbacks.plots`` asks for them.
        settings: as for :class:`ProcessLauncher`; a group of jobs counts as one.
    """

    def __init__(self, plots: bool = False, **settings: Any) -> None:
        from headstart.launch.workers import Workers

        super().__init__(**settings)
        self.plots, self.workers = plots, Workers(ENTRY)

    def plan(self, batch: Sequence[Sequence[str]], first: int = 0, label: str = "") -> "list[Job]":
        """The jobs of a batch, decided while the process that will train them imports what it needs."""
        if len(batch) > 1:
            atexit.register(self.workers.close)
            self.workers.warm()
        return super().plan(batch, first, label)

    def pool(self) -> "JobPool":
        """What runs the jobs."""
        from headstart.launch.fused import FusedPool

        return FusedPool(self.settings, self.workers, plots=self.plots)
