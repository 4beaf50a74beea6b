"""SLURM, through submitit: ``sbatch`` from a login node, started again where it was after a time limit or preemption.

submitit writes a script and a pickled :class:`Command` for each job, and is warned by SLURM before the end of the job's
time. It then stops the training in order and puts the job back into the queue; the training goes on from its last
epoch. ``cluster=local`` runs the same on this machine, without SLURM.
"""

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from headstart.errors import ConfigError, RunError
from headstart.launch.jobs import Job, Kind
from headstart.launch.node import Command, look
from headstart.launch.remote import Ended, Engine, last_line
from headstart.system.atomic import read_note, write_json
from headstart.system.console import show
from headstart.system.extras import require_extra
from headstart.system.hardware import Hardware, hardware_from
from headstart.system.options import Above, AtLeast, check_fields

_WAITS = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNS = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
_ALIVE = frozenset((*_WAITS, *_RUNS))
_KINDS: dict[str, Kind] = {"OUT_OF_MEMORY": "out_of_memory", "TIMEOUT": "timeout", "DEADLINE": "timeout"}
# A job is over when SLURM says so this often in a row: one that is started again is absent for a moment.
_LOOKS = 3


@dataclass(frozen=True)
class Resources:
    """What each job asks SLURM for.

    Attributes:
        cluster: SLURM's, or this machine.
        partition: where; None: SLURM's default.
        timeout_min: the limit of a job's time in one go.
        requeues: how often a job may reach that limit and be started again.
        warning_s: from SLURM's warning to the end of the time; a training stops within it.
        gpus_per_node: of the machines; a job gets as many as it has devices.
        cpus_per_task: cores for each process of a job.
        mem_gb: of memory for each node; None: SLURM's default.
        setup: shell lines before the job.
        additional: any other options of ``sbatch``, by their long names.
    """

    cluster: Literal["slurm", "local"] = "slurm"
    partition: str | None = None
    timeout_min: Annotated[int, AtLeast(1)] = 240
    requeues: Annotated[int, AtLeast(0)] = 10
    warning_s: Annotated[int, AtLeast(10)] = 90
    gpus_per_node: Annotated[int, AtLeast(0)] = 0
    cpus_per_task: Annotated[int, AtLeast(1)] = 2
    mem_gb: Annotated[float, Above(0)] | None = None
    setup: Sequence[str] = ()
    additional: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields("hydra.launcher", self)


@dataclass(frozen=True)
class _Submitted:
    job: Any
    note: Path


class SlurmEngine(Engine):
    """Queues jobs with submitit.

    Args:
        resources: what each job asks for.

    Raises:
        ConfigError: submitit or sbatch is missing.
    """

    def __init__(self, resources: Resources) -> None:
        require_extra("hydra/launcher=slurm", "slurm")
        if resources.cluster == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "hydra/launcher=slurm: there is no sbatch here; start the sweep on a login node of the cluster, or "
                "use hydra.launcher.cluster=local or hydra/launcher=process on this machine"
            )
        self._asked = resources
        self.outlives = self.several_nodes = resources.cluster == "slurm"
        self.poll_s = 2.0 if self.outlives else 0.3
        self._queried = 0.0
        self._over: Counter[str] = Counter()
        self._folders: set[Path] = set()

    @property
    def resources(self) -> Mapping[str, Any]:
        """Where jobs run, and with how many GPUs."""
        asked = self._asked
        return {
            "cluster": asked.cluster,
            "partition": asked.partition,
            "gpus": asked.gpus_per_node,
            "additional": dict(asked.additional),
        }

    @property
    def variables(self) -> Mapping[str, str]:
        """As many threads as cores, where SLURM does not bind a job to its cores."""
        return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(self._asked.cpus_per_task))}

    def probe(self, folder: Path) -> Hardware:
        """Ask a job with the same resources."""
        show("Asking a machine of the cluster what it has (once a study)")
        asked = self._asked
        executor = self._executor(
            folder, "headstart-probe", nodes=1, tasks=1, gpus=asked.gpus_per_node, cpus=asked.cpus_per_task
        )
        submitted = _Submitted(_submit(executor, look), folder / "probe.json")
        job = submitted.job
        try:
            while (end := self.ended([submitted])[0]) is None:
                time.sleep(self.poll_s)
        except KeyboardInterrupt:
            self.cancel(submitted)
            raise
        outcome, value = _pickled(job) or ("error", end.message or "it was killed")
        if outcome != "success":
            last = last_line(value)
            raise RunError(f"the cluster's machines cannot run Headstart: {last} (see {job.paths.folder})")
        shutil.rmtree(job.paths.folder, ignore_errors=True)
        return hardware_from(value)

    def attach(self, job: Job, note: Path) -> Any:
        """A job of an earlier sweep that SLURM still knows."""
        from submitit import SlurmJob

        told = read_note(note)
        if self._asked.cluster != "slurm" or told.get("fingerprint") != job.resolved.fingerprint:
            return None
        if (self._states() or {}).get(told["job"]) not in _ALIVE:
            return None
        return _Submitted(SlurmJob(told["folder"], told["job"]), note)

    def submit(self, job: Job, command: Command, note: Path) -> Any:
        """``sbatch``."""
        tasks, cpus = (job.processes if job.nodes > 1 else 1), self._asked.cpus_per_task
        if job.nodes == 1 and job.repeats_its_command:
            cpus *= job.processes
        gpus = len(job.gpus) if isinstance(job.gpus, list) else job.gpus
        name = job.directory.path.name
        executor = self._executor(note.parent, name, nodes=job.nodes, tasks=tasks, gpus=gpus, cpus=cpus)
        submitted = _submit(executor, command)
        folder = str(submitted.paths.folder)
        write_json(note, {"job": submitted.job_id, "folder": folder, "fingerprint": job.resolved.fingerprint})
        return _Submitted(submitted.task(0) if tasks * job.nodes > 1 else submitted, note)

    def ended(self, handles: Sequence[Any]) -> list[Ended | None]:
        """Its result, or what SLURM says of a job that left none."""
        found = [_result(handle.job) for handle in handles]
        if self._asked.cluster == "local":
            for place, handle in enumerate(handles):
                if found[place] is None and handle.job.done():
                    found[place] = _result(handle.job) or Ended(-signal.SIGKILL)
            return found
        open_places = [place for place, end in enumerate(found) if end is None]
        if not open_places or time.monotonic() - self._queried < 2 * self.poll_s:
            return found
        self._queried = time.monotonic()
        states = self._states()
        if states is None:
            return found
        for place in open_places:
            job = handles[place].job
            state = states.get(job.job_id, "")
            self._over[job.job_id] = 0 if state in _ALIVE else self._over[job.job_id] + 1
            if self._over[job.job_id] >= _LOOKS:
                found[place] = _result(job) or _lost(job.job_id, state)
        return found

    def cancel(self, handle: Any) -> None:
        """``scancel``."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            handle.job.cancel(check=False)

    def forget(self, handle: Any) -> None:
        """Its files beside the run are of no further use, unless it left no result."""
        if handle.job.paths.result_pickle.exists():
            shutil.rmtree(handle.job.paths.folder, ignore_errors=True)
        handle.note.unlink(missing_ok=True)

    def close(self) -> None:
        """What submitit made for itself has no more use."""
        for folder in self._folders:
            shutil.rmtree(folder / "%j", ignore_errors=True)
            for script in folder.glob(".submission_file_*.sh"):
                if not script.exists():  # a link into the folder of a job that is forgotten
                    script.unlink(missing_ok=True)

    def _executor(self, folder: Path, name: str, *, nodes: int, tasks: int, gpus: int, cpus: int) -> Any:
        import submitit

        asked = self._asked
        self._folders.add(folder)
        if asked.cluster == "local":
            local = submitit.LocalExecutor(folder / "%j", max_num_timeout=asked.requeues)
            local.update_parameters(
                timeout_min=asked.timeout_min,
                signal_delay_s=asked.warning_s,
                gpus_per_node=gpus,
                setup=list(asked.setup),
            )
            return local
        executor = submitit.SlurmExecutor(folder / "%j", max_num_timeout=asked.requeues)
        choices: dict[str, Any] = {
            "job_name": name,
            "partition": asked.partition,
            "time": asked.timeout_min,
            "nodes": nodes,
            "ntasks_per_node": tasks,
            "cpus_per_task": cpus,
            "mem": f"{round(1024 * asked.mem_gb)}MB" if asked.mem_gb else None,
            "gpus_per_node": gpus or None,
            "setup": list(asked.setup) or None,
            "signal_delay_s": asked.warning_s,
            "additional_parameters": dict(asked.additional) or None,
            # From SLURM 22.05 on, srun does not take this over from sbatch.
            "srun_args": [f"--cpus-per-task={cpus}"],
        }
        executor.update_parameters(**{key: value for key, value in choices.items() if value is not None})
        return executor

    def _states(self) -> dict[str, str] | None:
        """What SLURM says of each job of this user; None while it does not answer."""
        command = ["squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return None
        pairs = (line.strip().partition("|") for line in answer.stdout.splitlines())
        return {number: state for number, _, state in pairs}


def _submit(executor: Any, function: Any) -> Any:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        return executor.submit(function)
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        said = [line for line in str(error).splitlines() if line.strip().startswith("sbatch:")]
        raise RunError(
            f"SLURM refused the job: {'; '.join(said) or error}; what it is asked for is in hydra.launcher "
            "(partition, gpus_per_node, mem_gb, additional, and n_jobs for a limit on jobs in the queue)"
        ) from None


def _result(job: Any) -> Ended | None:
    found = _pickled(job)
    if found is None:
        return None
    outcome, value = found
    if outcome == "success":
        return Ended(value if isinstance(value, int) else 0)
    last = last_line(value)
    kind: Kind = "timeout" if "timed-out" in last else "error"
    return Ended(1, kind, last)


def _pickled(job: Any) -> tuple[str, Any] | None:
    """What submitit wrote at a job's end: "success" and what was returned, or "error" and a traceback."""
    from submitit.core.utils import pickle_load

    path: Path = job.paths.result_pickle
    with contextlib.suppress(OSError):
        path.parent.stat()  # Shared file systems notice a new file with this.
    try:
        outcome, value = pickle_load(path)
    except (EOFError, OSError):
        return None
    return str(outcome), value


def _lost(number: str, state: str) -> Ended:
    said = f"SLURM says {state} of job {number}" if state else f"SLURM does not know job {number} any more"
    return Ended(-signal.SIGKILL, _KINDS.get(state, "killed"), said)
