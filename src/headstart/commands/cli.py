"""The command line: ``python train.py``, ``headstart train`` and the other commands. No torch until a job is right."""

import importlib
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import __version__
from headstart.errors import RunError
from headstart.system.catalog import CONFIG_NAME, conf_dir
from headstart.system.interpreter import INTERRUPTED, collector_at_rest, interruption_in, terminable

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from headstart.runs.result import Result

COMMANDS = {
    "inspect": ("headstart.commands.inspect", "look at a data set before training"),
    "advise": ("headstart.commands.advise", "recommend a backbone and a training for your images, within a budget"),
    "rank": ("headstart.commands.rank", "score the networks at hand on a data set, before training"),
    "predict": ("headstart.commands.predict", "classify images with a finished run"),
    "evaluate": ("headstart.commands.evaluate", "score a finished run's model on new labelled images"),
    "features": ("headstart.commands.features", "write the features of images, one vector each"),
    "similar": ("headstart.commands.similar", "find the images nearest to an image"),
    "demo": ("headstart.commands.demo", "show a finished run as a page on this machine"),
    "runs": ("headstart.commands.runs", "list the runs of an output folder"),
    "report": ("headstart.commands.report", "compare the runs of a study"),
    "export": ("headstart.commands.export", "write a finished run's model for use elsewhere"),
    "cache": ("headstart.commands.cache", "list, remove or check stored activations"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The ``headstart`` command.

    Returns: the exit code; 0 only for a complete result.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_overview())
        return 0 if arguments else 2
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        print(f"headstart {__version__}")
        return 0
    if command == "train":
        return train_main(rest, command="headstart train")
    if command not in COMMANDS:
        from headstart.system.names import suggestion

        names = ["train", *COMMANDS]
        print(f"error: '{command}' is no command{suggestion(command, names)}", file=sys.stderr)
        print(f"Commands: {', '.join(names)}", file=sys.stderr)
        return 2
    with collector_at_rest():
        run = importlib.import_module(COMMANDS[command][0]).main
    with _reported(rest, resumes="" if command != "advise" else "; the same command goes on") as exit_code:
        exit_code.value = run(rest) or 0
    return exit_code.value


def train_main(argv: Sequence[str] | None = None, *, command: str | None = None) -> int:
    """One training, or a sweep with ``-m``, from Hydra overrides.

    Args:
        argv: the overrides and Hydra's switches; by default those of the process.
        command: as the user called it, for the help text.

    Returns: the exit code; 0 only when every result is complete.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        from headstart.commands.help import help_text

        print(help_text(command or f"python {Path(sys.argv[0]).name}", _folders(arguments)))
        return 0
    job = _Job(arguments, sys.argv)
    resumes = "; the same command goes on from the last finished epoch"
    with _reported(arguments, resumes=resumes) as exit_code:
        with collector_at_rest():
            import hydra

            from headstart.config.switches import ordered
        with _hydra_arguments(ordered(arguments)):
            try:
                hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG_NAME)(job)()
            except Exception as error:
                if not job.started and (came := interruption_in(error)):
                    raise came from None  # not from the error, which came of it
                if not job.failures:
                    raise
        exit_code.value = 1 if job.failures else 0
    if job.sweeps and job.failures:
        print(f"error: {len(job.failures)} of {job.started} runs failed; the others are complete", file=sys.stderr)
    return exit_code.value


@contextmanager
def _hydra_arguments(arguments: list[str]) -> Iterator[None]:
    """Within the block, Hydra finds the arguments where it looks, and its errors come back as they are."""
    process = sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its own text and leave.
    try:
        sys.argv = [process[0], *arguments]
        yield
    finally:
        sys.argv = process


class _Job:
    """One job of a command: checks, then trains; reports its own failure, so that a sweep says which job failed."""

    def __init__(self, arguments: list[str], process: list[str]) -> None:
        self.arguments = arguments
        self.process = process
        self.failures: list[BaseException] = []
        self.started = 0
        self.sweeps = False
        # Hydra looks for the file of the function that it runs.
        self.__module__ = __name__
        self.__name__ = "job"

    def __call__(self, config: "DictConfig") -> float | None:
        """Hydra's task function: resolve, then train; returns the validation metric that chose the checkpoint."""
        from hydra.core.hydra_config import HydraConfig

        from headstart.config.resolve import resolve_run

        self.started += 1
        node = HydraConfig.get()
        self.sweeps = str(node.mode).endswith("MULTIRUN")
        # Lightning starts the other ranks by repeating the command of the process.
        sys.argv = self.process
        try:
            resolved = resolve_run(config)  # What can be wrong without torch is found before it is imported.
            if resolved.settings.plan:
                importlib.import_module("headstart.execution.plan").plan_run(resolved).show()
                return None
            with collector_at_rest():
                from headstart.execution.train import train

            return _monitored(train(resolved).result)
        except Exception as error:
            label = " ".join(node.overrides.task) if self.sweeps else ""
            _report(error, self.arguments, label=label)
            self.failures.append(error)
            if self.sweeps:
                raise  # A sweeper must know; of a single job, Hydra would only print the overrides once more.
            return None


def _monitored(result: "Result") -> float | None:
    """The metric that chose the checkpoint.

    Raises:
        RunError: the run is not complete.
    """
    if result.status != "done":
        raise RunError(f"the run is not complete: {result.error or result.status}")
    metric = result.metrics.get(result.details.get("monitor", "val/acc"))
    return None if metric is None else float(metric)


class _ExitCode:
    """What the process ends with; 0 only for a complete result."""

    value = 1


@contextmanager
def _reported(arguments: Sequence[str], *, resumes: str) -> Iterator[_ExitCode]:
    """Within the block a fixable error becomes one line, Ctrl-C a short one; the exit code says which.

    Args:
        arguments: of the command.
        resumes: what is said after Ctrl-C of the same command once more.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A log shows each epoch when it ends, in order with the errors; names of files may be no UTF-8.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    code = _ExitCode()
    try:
        with terminable():
            yield code
    except KeyboardInterrupt:
        print(f"\ninterrupted{resumes}", file=sys.stderr)
        code.value = INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`, `less`) has gone; what is left must not be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code.value = 1
    except Exception as error:
        _report(error, arguments)
        code.value = 1


def _report(error: BaseException, arguments: Sequence[str], *, label: str = "") -> None:
    """One line, or one a problem, on standard error; the traceback where nobody could foresee the error."""
    from headstart.config.explain import explain
    from headstart.config.explain_library import explain_library
    from headstart.system.names import legible

    line = explain(error, arguments, _folders(arguments)) or explain_library(error)
    rank = os.environ.get("LOCAL_RANK", "0")
    prefix = f"[rank {rank}] " if rank != "0" else ""
    prefix += f"[{label}] " if label else ""
    if line is None or _wants_traceback(arguments):
        traceback.print_exception(error)
    for problem in (line or f"{type(error).__name__}: {error}").splitlines():
        print(legible(f"{prefix}error: {problem}"), file=sys.stderr)


def _wants_traceback(arguments: Sequence[str]) -> bool:
    return any(argument.lstrip("+").lower() == "debug=true" for argument in arguments)


def _folders(arguments: Sequence[str]) -> list[Path]:
    """The folders of YAML files: the user's own (``--config-dir``), then the package's."""
    folders = [conf_dir()]
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in {"--config-dir", "-cd"}:
            folder = value if equals else "".join(arguments[position + 1 : position + 2])
            folders.insert(0, Path(folder).expanduser().absolute())
    return folders


def _overview() -> str:
    lines = ["Config-driven transfer-learning experiments on images.", "", "Usage: headstart COMMAND ...", ""]
    lines.append("  train     train, with the same choices as train.py; `headstart train --help` lists them")
    lines += [f"  {name:<10}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join([*lines, "", "`headstart COMMAND --help` says more. `headstart --version` prints the version."])
