"""``hydra/launcher=slurm`` and ``hydra/launcher=ray``: the jobs of a sweep on other machines."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
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
        n_jobs: how many in the queue at a time; None: all.
        timeout_s: for one attempt of a job, its time in the queue not counted; None: only the cluster's own limit.
        retries: further attempts after a failure that ``retry_on`` names.
        retry_on: kinds of failures and names of exceptions.
        grace_s: from asking a job to stop to killing it.
        n_jobs_cpu: of a single machine; without effect here.
        resources: of each job.
    """

    def __init__(
        self,
        n_jobs: int | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
        retry_on: Sequence[str] = (),
        grace_s: float = 20.0,
        n_jobs_cpu: int = 1,
        **resources: Any,
    ) -> None:
        super().__init__(n_jobs, timeout_s, retries, retry_on, grace_s, n_jobs_cpu)
        self.resources: Mapping[str, Any] = resources

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
        from hydra_plugins.headstart.planning import on_one_machine, plan_jobs

        with assumed(self.hardware):
            jobs = plan_jobs(self.hydra_context.config_loader, self.config, batch, first=first, label=label)
        return jobs if self.engine.several_nodes else [on_one_machine(job) for job in jobs]


class SlurmLauncher(ClusterLauncher):
    """SLURM, through submitit. Its resources: :class:`headstart.launch.slurm.Resources`."""

    def make_engine(self) -> "Engine":
        """SLURM, or this machine in its place."""
        from headstart.launch.slurm import Resources, SlurmEngine

        asked = {**self.resources, "setup": tuple(self.resources.get("setup") or ())}
        asked["additional"] = dict(self.resources.get("additional") or {})
        return SlurmEngine(Resources(**asked))


class RayLauncher(ClusterLauncher):
    """Ray. Its resources: :class:`headstart.launch.ray_cluster.RayResources`."""

    def make_engine(self) -> "Engine":
        """A cluster of Ray."""
        from headstart.launch.ray_cluster import RayEngine, RayResources

        return RayEngine(RayResources(**self.resources))
