"""``hydra/launcher=slurm`` and ``hydra/launcher=ray``: the jobs of a sweep on other machines."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra_plugins.headstart.launcher import ProcessLauncher

if TYPE_CHECKING:
    from headstart.launch.jobs import Job
    from headstart.launch.pool import JobPool
    from headstart.launch.remote import Engine
    from headstart.system.hardware import Hardware


class ClusterLauncher(ProcessLauncher):
    """Runs each job as the command that would train it alone, on a machine of a cluster.

    Args:
        choices: :class:`headstart.launch.pool.PoolSettings`, where times count from a job's start and ``n_jobs`` is
            how many are in the queue at a time, None for all; and the resources of each job.
    """

    def __init__(self, **choices: Any) -> None:
        from headstart.config.compose import plain
        from headstart.launch.pool import PoolSettings

        settings = {field.name: choices.pop(field.name) for field in fields(PoolSettings) if field.name in choices}
        super().__init__(**settings)
        self.resources = plain(choices)

    @abstractmethod
    def make_engine(self) -> "Engine":
        """What queues the jobs.

        Raises:
            ConfigError: a library or a command is missing, or a value is impossible.
        """

    @cached_property
    def engine(self) -> "Engine":
        """The cluster's software."""
        return self.make_engine()

    @cached_property
    def hardware(self) -> "Hardware":
        """Of the machines that run the jobs."""
        from headstart.launch.remote import node_hardware

        return node_hardware(self.engine, Path(str(self.config.hydra.sweep.dir)).absolute())

    @property
    def everything_at_once(self) -> bool:
        """Whether nothing limits how many jobs there are at a time."""
        return self.settings.n_jobs is None

    def pool(self) -> "JobPool":
        """What runs the jobs."""
        from headstart.launch.remote import RemotePool

        return RemotePool(self.settings, self.engine, self.hardware)

    def plan(self, batch: Sequence[Sequence[str]], first: int = 0, label: str = "") -> "list[Job]":
        """The jobs of a batch, decided by what the cluster's machines have."""
        from headstart.system.hardware import assumed
        from hydra_plugins.headstart._planning import on_one_machine, plan_jobs

        with assumed(self.hardware):
            jobs = plan_jobs(self.hydra_context.config_loader, self.config, batch, first=first, label=label)
        return jobs if self.engine.several_nodes else [on_one_machine(job) for job in jobs]


class SlurmLauncher(ClusterLauncher):
    """SLURM, through submitit. Its resources: :class:`headstart.launch.slurm.Resources`."""

    def make_engine(self) -> "Engine":
        """SLURM, or this machine in its place."""
        from headstart.launch.slurm import Resources, SlurmEngine

        return SlurmEngine(Resources(**self.resources))


class RayLauncher(ClusterLauncher):
    """Ray. Its resources: :class:`headstart.launch.ray_cluster.RayResources`."""

    def make_engine(self) -> "Engine":
        """A cluster of Ray."""
        from headstart.launch.ray_cluster import RayEngine, RayResources

        return RayEngine(RayResources(**self.resources))
