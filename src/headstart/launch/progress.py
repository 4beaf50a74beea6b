"""How a sweep is going: a live table on a terminal, a line for each run that ends elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from headstart.launch.jobs import Outcome
from headstart.launch.pool import JobPool, Running
from headstart.system.console import duration, get_console, is_terminal, show

_REFRESH_S = 0.5


class SweepProgress:
    """Shows done, running and failed jobs and the time that is left.

    Args:
        pool: what runs them.
        total: how many jobs there are; None where that is not known (a search for a while).
    """

    def __init__(self, pool: JobPool, total: int | None) -> None:
        self._pool = pool
        self._total = total
        self._started = time.monotonic()
        self._work = 0.0
        self._drawn = 0.0
        self._live: Live | None = None
        self.outcomes: list[Outcome] = []
        if is_terminal():
            self._live = Live(console=get_console(), auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def failed(self) -> int:
        """How many jobs have failed so far."""
        return sum(outcome.failed for outcome in self.outcomes)

    def ended(self, outcome: Outcome) -> None:
        """Count a job that has ended, and say so."""
        self.outcomes.append(outcome)
        if outcome.attempts:
            self._work += 1
        if outcome.returned and outcome.done:
            return
        show(self._line(outcome))

    def stop(self) -> None:
        """Stop what runs, and tell what became of it."""
        show("Stopping: running jobs finish what they write. Again to stop at once.")
        for outcome in self._pool.interrupt():
            self.ended(outcome)

    def tick(self) -> None:
        """Redraw, now and then."""
        now = time.monotonic()
        if self._live is not None and now - self._drawn >= _REFRESH_S:
            self._drawn = now
            self._live.update(self._table(), refresh=True)

    def _line(self, outcome: Outcome) -> Text:
        place = f"[{len(self.outcomes)}/{self._total}]" if self._total is not None else f"[{len(self.outcomes)}]"
        text = Text(f"{place} ").append(*_word(outcome)).append(f" {outcome.job.label}")
        name, value = outcome.monitor
        if value is not None:
            text.append(f"  {name} {value:.4f}")
        if outcome.seconds:
            text.append(f"  {duration(outcome.seconds)}")
        if outcome.message:
            text.append(f"  {outcome.message.splitlines()[0]}", style="red" if outcome.failed else "")
        if self._live is None:
            text.append(f"  ({self._counts()})", style="dim")
        return text

    def _counts(self) -> str:
        parts = [f"{len(self._pool.running)} running"]
        parts += [f"{self._pool.waiting} waiting"] if self._pool.waiting else []
        parts += [f"{self.failed} failed"] if self.failed else []
        left = self.seconds_left()
        return ", ".join([*parts, *([f"about {duration(left)} left"] if left else [])])

    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is any."""
        running = sum(_fraction(job) for job in self._pool.running.values())
        remaining = self._pool.waiting + len(self._pool.running) - running
        elapsed = time.monotonic() - self._started
        done = self._work + running
        return remaining * elapsed / done if done > 0.05 and remaining > 0 else None

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        done = sum(outcome.done for outcome in self.outcomes)
        total = "" if self._total is None else f" of {self._total}"
        table.add_row(Text(f"{done} done{total}, {self._counts()}", style="bold"))
        for running in self._pool.running.values():
            epochs, most = epochs_done(running), running.job.max_epochs
            bar = "━" * round(20 * _fraction(running))
            seconds = duration(time.monotonic() - running.started)
            table.add_row(
                Text(f"  {running.job.label}"),
                Text(f"{bar:<20}", style="cyan"),
                Text(f"epoch {min(epochs + 1, most)}/{most}" if running.began else "waits"),
                Text(seconds),
            )
        return table


def epochs_done(running: Running) -> int:
    """Epochs of which the job has written the metrics."""
    path = running.job.directory.metrics_file
    try:
        return max(0, path.read_text(encoding="utf-8").count("\n") - 1)
    except OSError:
        return 0


def _fraction(running: Running) -> float:
    return min(1.0, epochs_done(running) / running.job.max_epochs) if running.job.max_epochs > 0 else 0.0


def _word(outcome: Outcome) -> tuple[str, str]:
    if outcome.done:
        return "done", "green"
    return ("failed", "bold red") if outcome.failed else (outcome.kind, "yellow")
