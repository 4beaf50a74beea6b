"""``headstart runs``: what is in the output folder."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from headstart.runs.reader import RunRecord, read_runs

_GROUPS = ("backbone", "head", "strategy", "datamodule")
_STYLES = {"done": "green", "running": "cyan", "partial": "yellow", "failed": "red", "unreadable": "red"}


@dataclass(frozen=True)
class Listed:
    """One run as a line of the list.

    Attributes:
        status: ``done``, ``failed``, ``partial`` (the same command resumes it), ``running`` or ``unreadable``.
        study: the folder that the run is in.
        run: the directory, as found.
        choices: in words: the groups, the seed, and what else was given.
        metric: the one that chose the checkpoint, without its split (``acc``); None before there is one.
        val: its value on validation.
        test: its value on the test split, where there is one.
        seconds: over all attempts; of an unfinished run as far as recorded.
        reason: why it is not done.
    """

    status: str
    study: str
    run: str
    choices: str
    metric: str | None
    val: float | None
    test: float | None
    seconds: float | None
    reason: str


def list_runs(directory: str | Path) -> list[Listed]:
    """Every run at or below ``directory``, ordered by path.

    Raises:
        RunError: ``directory`` is not a folder.
    """
    return [_listed(run) for run in read_runs(directory)]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: a table, or JSON with ``--json``. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="headstart runs", description="List the runs in the output folder.")
    parser.add_argument(
        "directory", nargs="?", default="outputs", help="output folder, study or run (default: outputs)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    choices = parser.parse_args(argv)
    # Before the first run there is no such folder, and nothing is wrong.
    fresh = choices.directory == parser.get_default("directory") and not Path(choices.directory).exists()
    runs = [] if fresh else list_runs(choices.directory)
    if choices.json:
        print(json.dumps([asdict(run) for run in runs], indent=2))
    elif runs:
        _print_table(runs)
    else:
        print(f"No runs in {choices.directory} yet; `headstart train` makes one.")
    return 0


def _listed(run: RunRecord) -> Listed:
    running = run.status == "partial" and run.directory.in_use
    metric = _metric(run)
    return Listed(
        status="running" if running else run.status,
        study=run.path.absolute().parent.name,
        run=run.path.as_posix(),
        choices=_choices(run),
        metric=metric,
        val=run.metrics.get(f"val/{metric}"),
        test=run.metrics.get(f"test/{metric}"),
        seconds=run.costs.get("total_seconds") or run.recorded_seconds,
        reason="" if running else run.reason,
    )


def _choices(run: RunRecord) -> str:
    if not run.choices:
        return run.path.name
    shown = [str(run.choices[group]) for group in _GROUPS if group in run.choices]
    shown += [f"seed {run.seed}"]
    given = run.result.config.get("overrides", [])
    for override in given if isinstance(given, list) else []:
        name = str(override).lstrip("+~").split("=", 1)[0]
        if name not in (*_GROUPS, "seed", "name") and not name.startswith("paths."):
            shown.append(str(override))
    return " · ".join(shown)


def _metric(run: RunRecord) -> str | None:
    names = [name.removeprefix("val/") for name in run.metrics if name.startswith("val/")]
    monitor = str(run.result.details.get("monitor", "val/acc")).removeprefix("val/")
    if monitor in names or not names:
        return monitor if names else None
    return next((name for name in names if name != "loss"), names[0])


def _print_table(runs: Sequence[Listed]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from headstart.system.console import Legible

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("status", "study", "choices"):
        table.add_column(heading, overflow="fold")
    for heading in ("metric", "val", "test", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        choices = Text(run.choices)
        if run.reason:
            choices.append(f"\n{run.reason}", style="dim")
        cells = [_number(run.val, ".4f"), _number(run.test, ".4f"), _number(run.seconds, ".1f")]
        table.add_row(
            Text(run.status, style=_STYLES.get(run.status, "")), Text(run.study), choices, run.metric or "-", *cells
        )
    Console().print(Legible(table))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
