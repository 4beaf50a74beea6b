"""What a machine of a cluster does with a job: run its command, hear a request to stop, begin again when displaced.

Nothing here knows the cluster's software, and nothing heavy is imported: the command is a process of its own.
``python -m headstart.launch.node ARGUMENTS`` becomes ``headstart train ARGUMENTS`` and goes when its parent goes.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from headstart.launch.server import die_with_parent
from headstart.launch.workers import is_foreign
from headstart.system.hardware import detect, hardware_text

_POLL_S = 0.5
# How a training ends that was told to go by someone else: by the signal, or in order after it.
_TERMINATED = (-signal.SIGTERM, 128 + signal.SIGINT)


@dataclass
class Command:
    """A job's command line; called where it should run.

    Attributes:
        arguments: of ``headstart train``.
        folder: where it runs.
        output: file that gets what it prints; it is there as soon as the job runs.
        variables: of the environment, beside those of the machine.
        stop: file whose appearance asks the job to stop.
        grace_s: from asking to killing.
        one_of_many: the cluster starts every process of the job, so each must keep the variables that number it.
        displaceable: whether whoever terminates the job may start it again, after saying so.
    """

    arguments: tuple[str, ...]
    folder: str
    output: str
    variables: dict[str, str]
    stop: str
    grace_s: float = 20.0
    one_of_many: bool = False
    displaceable: bool = False
    _process: "subprocess.Popen[bytes] | None" = None

    def __call__(self) -> int:
        """Run it; its exit code, negative for a signal."""
        environment = {name: value for name, value in os.environ.items() if self.one_of_many or not is_foreign(name)}
        rank = os.environ.get("SLURM_PROCID", "0") if self.one_of_many else "0"
        output = Path(self.output) if rank == "0" else Path(self.output).with_suffix(f".rank{rank}.txt")
        with output.open("ab", buffering=0) as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headstart.launch.node", *self.arguments],
                cwd=self.folder,
                env=environment | self.variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            return self._wait(self._process)
        finally:
            self._signal(signal.SIGKILL)

    def checkpoint(self) -> Any:
        """For submitit, when SLURM takes the machine away: stop, and what to do when the job is started again."""
        from submitit.helpers import DelayedSubmission

        self._signal(signal.SIGINT)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.grace_s)
        # It goes on then; with rerun=all it would throw away all that it has done.
        self.arguments = tuple("rerun=failed" if one == "rerun=all" else one for one in self.arguments)
        return DelayedSubmission(self)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the process, which stays where it is."""
        return {**self.__dict__, "_process": None}

    def _wait(self, process: "subprocess.Popen[bytes]") -> int:
        stop, kill_at = Path(self.stop), float("inf")
        while True:
            try:
                code = process.wait(_POLL_S)
                break
            except subprocess.TimeoutExpired:
                pass
            if kill_at == float("inf") and stop.exists():
                self._signal(signal.SIGINT)
                kill_at = time.monotonic() + self.grace_s
            elif time.monotonic() > kill_at:
                self._signal(signal.SIGKILL)
        if kill_at == float("inf") and code in _TERMINATED:
            if self.displaceable:
                time.sleep(self.grace_s)  # SLURM terminates all processes first, and tells submitit then.
            return -signal.SIGTERM
        return code

    def _signal(self, number: int) -> None:
        """Signal the command and all that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def travelling(environment: dict[str, str]) -> dict[str, str]:
    """Variables that a job needs on any machine; nothing secret, because they are written to disk.

    Args:
        environment: of a job on this machine.
    """
    prefixes = ("HEADSTART_", "WANDB_", "HF_", "MLFLOW_", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONWARNINGS")
    secret = ("KEY", "TOKEN", "PASSWORD", "SECRET")
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(prefixes) and not any(part in name for part in secret)
    }


def look() -> str:
    """What the machine has that this is called on: :func:`headstart.system.hardware.hardware_text`."""
    return hardware_text(detect())


def main() -> NoReturn:
    """Become the command."""
    die_with_parent()
    # SLURM's warning goes to every process of a job; only submitit's knows what to do with it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    os.execv(sys.executable, [sys.executable, "-m", "headstart", "train", *sys.argv[1:]])


if __name__ == "__main__":
    main()
