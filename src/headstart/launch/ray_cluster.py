"""Ray: a cluster of its own on this machine, or one that runs already."""

import logging
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from headstart.errors import ConfigError, RunError
from headstart.launch.jobs import Job
from headstart.launch.node import Command, look
from headstart.launch.remote import Ended, Engine, last_line
from headstart.system.extras import require_extra
from headstart.system.hardware import Hardware, detect, hardware_from
from headstart.system.options import Above, AtLeast, check_fields


@dataclass(frozen=True)
class RayResources:
    """Where jobs run, and what each asks for.

    Attributes:
        address: of a cluster, ``auto`` for the one that this machine is part of; None: a new one on this machine.
        cpus_per_job: cores for each job.
        gpus_per_job: for each job, less than 1 for jobs that share one; None: as many as it has devices.
    """

    address: str | None = None
    cpus_per_job: Annotated[float, Above(0)] = 1
    gpus_per_job: Annotated[float, AtLeast(0)] | None = None

    def __post_init__(self) -> None:
        check_fields("hydra.launcher", self)


class RayEngine(Engine):
    """Queues jobs as tasks of Ray; Ray starts as many as there are cores and GPUs for.

    Args:
        resources: where, and what each job asks for.

    Raises:
        ConfigError: Ray is missing.
    """

    poll_s = 0.3

    def __init__(self, resources: RayResources) -> None:
        require_extra("hydra/launcher=ray", "ray")
        self._asked = resources
        self._ray: Any = None

    @property
    def resources(self) -> Mapping[str, Any]:
        """Where jobs run, and with how many GPUs."""
        return {"ray": self._asked.address, "gpus": self._asked.gpus_per_job}

    def probe(self, folder: Path) -> Hardware:
        """Of this machine for a cluster of its own, else of one that a job would get."""
        if self._asked.address is None:
            return detect()
        ray = self._connect()
        self._require(self._asked.cpus_per_job, self._asked.gpus_per_job or 0)
        task = ray.remote(look).options(
            num_cpus=self._asked.cpus_per_job, num_gpus=self._asked.gpus_per_job or 0, max_retries=0
        )
        try:
            return hardware_from(ray.get(task.remote()))
        except ray.exceptions.RayError as error:
            last = last_line(error)
            raise RunError(f"the cluster's machines cannot run Headstart: {last}") from None

    def submit(self, job: Job, command: Command, note: Path) -> Any:
        """A task."""
        ray = self._connect()
        gpus: float = len(job.gpus) if isinstance(job.gpus, list) else job.gpus
        if gpus and self._asked.gpus_per_job is not None:
            gpus = max(self._asked.gpus_per_job, gpus if gpus > 1 else 0)
        cpus = self._asked.cpus_per_job * (job.processes if job.repeats_its_command else 1)
        self._require(cpus, gpus)
        task = ray.remote(_call).options(num_cpus=cpus, num_gpus=gpus, max_retries=0, name=job.directory.path.name)
        return task.remote(command)

    def ended(self, handles: Sequence[Any]) -> list[Ended | None]:
        """The exit codes of those that are ready."""
        if not handles:
            return []
        ray = self._connect()
        ready, _ = ray.wait(list(handles), num_returns=len(handles), timeout=0)
        return [self._outcome(handle) if handle in ready else None for handle in handles]

    def cancel(self, handle: Any) -> None:
        """Kill its worker; the job goes with that."""
        self._connect().cancel(handle, force=True)

    def forget(self, handle: Any) -> None:
        """Nothing is left of it."""

    def close(self) -> None:
        """Leave the cluster; one of its own ends."""
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def _outcome(self, handle: Any) -> Ended:
        errors = self._ray.exceptions
        try:
            return Ended(int(self._ray.get(handle)))
        except errors.TaskCancelledError:
            return Ended(-signal.SIGKILL)
        except errors.OutOfMemoryError:
            return Ended(-signal.SIGKILL, "out_of_memory", "Ray stopped it, because its machine ran out of memory")
        except errors.RayTaskError as error:
            last = last_line(error)
            return Ended(1, "error", last)
        except errors.RayError as error:
            first = str(error).strip().partition("\n")[0]
            return Ended(-signal.SIGKILL, "killed", f"Ray lost it: {first}")

    def _require(self, cpus: float, gpus: float) -> None:
        """Ray would wait for ever for what no machine of the cluster has.

        Raises:
            ConfigError: no machine has that much.
        """
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            return
        has = ", ".join(f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ConfigError(
            f"a job asks for {cpus:g} cores and {gpus:g} GPUs, but no machine of the Ray cluster has them ({has}); "
            "change hydra.launcher.cpus_per_job, gpus_per_job or trainer.devices"
        )

    def _connect(self) -> Any:
        if self._ray is None:
            # Ray would warn that it leaves GPUs visible to a task that asks for none.
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            import ray

            own = {"include_dashboard": False} if self._asked.address is None else {"address": self._asked.address}
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True, **own)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RunError(f"hydra.launcher.address={self._asked.address}: no Ray cluster ({error})") from None
            self._ray = ray
        return self._ray


def _call(command: Command) -> int:
    return command()
