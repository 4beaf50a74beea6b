"""A whole sweep: what is there is returned, the rest is run, every outcome is told, the study's report is written."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.text import Text

from headstart.errors import ConfigError, RunError
from headstart.launch.jobs import Job, Outcome, record_sweep
from headstart.launch.pool import JobPool, interruptible, run_jobs
from headstart.launch.progress import SweepProgress
from headstart.runs.result import RESULT_FILE
from headstart.system.console import duration, number, plain_table, show

SWEEP_FILE = "sweep.json"
_LONGEST_TABLE = 40


class SweepError(RunError):
    """Some jobs of a sweep failed; each was told, and the others are complete."""


def check_jobs(jobs: Sequence[Job]) -> None:
    """A mistake that is in every job stops the sweep before anything starts.

    Raises:
        ConfigError: with one line for each mistake.
    """
    if jobs and all(job.problem for job in jobs):
        lines = dict.fromkeys(line for job in jobs for line in job.problem.splitlines())
        raise ConfigError("\n".join(lines))


def run_sweep(jobs: Sequence[Job], pool: JobPool) -> list[Outcome]:
    """Run what is missing, and show how it goes.

    Args:
        jobs: all of them.
        pool: what runs them.

    Returns: an outcome for each job, in their order.

    Raises:
        ConfigError: the same mistake is in every job.
        KeyboardInterrupt: the user stopped it; the jobs were stopped in order.
    """
    check_jobs(jobs)
    with pool, SweepProgress(pool, len(jobs)) as progress, interruptible(pool):
        announce(jobs, pool.n_jobs)
        try:
            for outcome in run_jobs(pool, jobs):
                progress.tick() if outcome is None else progress.ended(outcome)
        except KeyboardInterrupt:
            progress.stop()
            record(progress.outcomes)
            raise
    outcomes = sorted(progress.outcomes, key=lambda outcome: outcome.job.number)
    record(outcomes)
    return outcomes


def announce(jobs: Sequence[Job], n_jobs: int) -> None:
    """Say what there is to do."""
    states = Counter("mistaken" if job.problem else job.directory.action for job in jobs)
    words = {
        "return": "there already",
        "resume": "to go on with",
        "train": "to train",
        "mistaken": "with a mistake",
    }
    parts = [f"{states[state]} {words[state]}" for state in words if states[state]]
    busy = states["train"] + states["resume"]
    at_a_time = f", {min(n_jobs, busy)} at a time" if busy > 1 else ""
    show(f"{len(jobs)} runs: {', '.join(parts)}{at_a_time}")


def show_plan(jobs: Sequence[Job]) -> None:
    """For ``plan=true``: what each job would do."""
    table = plain_table("", "job", "choices", "would", "run")
    for job in jobs:
        if job.problem:
            table.add_row(str(job.number), Text(job.label), "fail", Text(job.problem))
            continue
        run = job.directory
        action = run.action
        if not any(run.path.iterdir()):
            run.path.rmdir()  # Asking what would be there must leave nothing.
        table.add_row(str(job.number), Text(job.label), action, Text(run.path.name))
    show(table)


def record(outcomes: Sequence[Outcome]) -> None:
    """Write ``sweep.json`` into the folder of each study."""
    folders = {outcome.job.study_dir for outcome in outcomes if outcome.job.run is not None}
    for folder in folders:
        mine = [o for o in outcomes if o.job.run is None or o.job.study_dir == folder]
        record_sweep(folder / SWEEP_FILE, mine)


def show_summary(outcomes: Sequence[Outcome]) -> None:
    """A table of what became of each job; of the ones that did not finish only, where there are many."""
    chosen = outcomes if len(outcomes) <= _LONGEST_TABLE else [outcome for outcome in outcomes if not outcome.done]
    if chosen:
        metric = next((name for name, _ in (outcome.monitor for outcome in outcomes) if name), "")
        table = plain_table("", "run", "outcome", number(metric or "metric"), number("time"))
        for outcome in chosen:
            value = outcome.monitor[1]
            table.add_row(
                Text(outcome.job.label),
                _told(outcome),
                "" if value is None else f"{value:.4f}",
                duration(outcome.seconds) if outcome.seconds else "",
            )
        show(table)
    counts = Counter(_group(outcome) for outcome in outcomes)
    show(", ".join(f"{count} {name}" for name, count in counts.items()))


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Exit code 1 if anything failed.

    Raises:
        SweepError: says how many.
    """
    failed = sum(outcome.failed for outcome in outcomes)
    if failed:
        rest = "" if failed == len(outcomes) else "; the others are complete"
        raise SweepError(f"{failed} of {len(outcomes)} runs failed{rest}")


def write_reports(folders: Iterable[Path]) -> None:
    """The report of every study that the sweep is about; one that cannot be written is told and harms nothing."""
    for folder in sorted(set(folders)):
        try:
            _write_report(folder)
        except Exception as error:
            show(Text(f"no report of {folder}: {type(error).__name__}: {error}", style="yellow"))


def _write_report(folder: Path) -> None:
    from headstart.study.report import PAGE, print_report, write_report

    page = folder / PAGE
    if page.exists():
        written = page.stat().st_mtime
        if all(result.stat().st_mtime <= written for result in folder.glob(f"*/{RESULT_FILE}")):
            show(f"The report is up to date: {page}")
            return
    print_report(write_report(folder))


def _told(outcome: Outcome) -> Text:
    if outcome.done:
        return Text("there already" if outcome.returned else "done", style="green")
    text = Text(f"{outcome.kind.replace('_', ' ')}: {outcome.message}", style="red" if outcome.failed else "yellow")
    if outcome.attempts > 1:
        text.append(f" ({outcome.attempts} attempts)")
    if outcome.failed and outcome.output is not None:
        text.append(f"\n{outcome.output.parent.name}/{outcome.output.name}", style="dim")
    return text


def _group(outcome: Outcome) -> str:
    if outcome.done:
        return "there already" if outcome.returned else "done"
    return "failed" if outcome.failed else outcome.kind
