"""What a run says on the terminal, and the same as plain text in a log.

Renderables are built by pure functions and shown by :func:`show`, which also copies them into the run's log.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from headstart.system.names import legible

PLAIN_WIDTH = 120
"""Columns of a log; a terminal has its own."""

# The file is looked up at each print, so that redirected and captured output is followed.
_console = Console(highlight=False, soft_wrap=False, emoji=False)
_copies: list[Path] = []
_unseen: list[bool] = []


def get_console() -> Console:
    """The console that everything is shown on: standard output."""
    return _console


def is_terminal() -> bool:
    """Whether a person is watching standard output in a terminal that can redraw lines."""
    return _console.is_terminal and not _console.is_dumb_terminal


@dataclass(frozen=True)
class Legible:
    """What is shown, with names in it as :func:`headstart.system.names.legible` has them: no terminal obeys one."""

    shown: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in console.render(self.shown, options):
            yield part if part.control else Segment(legible(part.text), part.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.shown)


def show(renderable: RenderableType) -> None:
    """Print a table, text or string, with colours on a terminal; copy it into the log of :func:`copied_to`."""
    # Paths and messages in plain strings are not markup, and are never broken into lines.
    unbroken = isinstance(renderable, str | Text)
    text = Legible(Text(renderable) if isinstance(renderable, str) else renderable)
    if _unseen:
        pass
    elif _console.is_terminal:
        _console.print(text, soft_wrap=unbroken)
    else:
        _plain(_console.file).print(text, soft_wrap=unbroken)
    for path in _copies:
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            _plain(file).print(text, soft_wrap=unbroken)


def _plain(file: IO[str]) -> Console:
    return Console(file=file, width=PLAIN_WIDTH, no_color=True, highlight=False, emoji=False)


@contextmanager
def copied_to(path: Path | None) -> Iterator[None]:
    """Append what is shown within the block to a file, as plain text; nowhere if ``path`` is None."""
    if path is None:
        yield
        return
    _copies.append(path)
    try:
        yield
    finally:
        _copies.remove(path)


@contextmanager
def only_copied() -> Iterator[None]:
    """Within the block, what is shown goes to the files of :func:`copied_to` alone: many runs say the same."""
    _unseen.append(True)
    try:
        yield
    finally:
        _unseen.pop()


def plain_table(title: str = "", *columns: str | Column) -> Table:
    """An empty table with a line under its heading, as every command shows one; ``title`` may hold markup.

    Args:
        title: may be empty.
        columns: of texts, which are broken where they are too long, by their headings; others as they are.
    """
    made = [Column(one, overflow="fold") if isinstance(one, str) else one for one in columns]
    return Table(
        *made,
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )


def number(heading: str) -> Column:
    """A column of numbers, which are never broken."""
    return Column(heading, justify="right", no_wrap=True)


def count_text(number: float, unit: str = "") -> str:
    """In as few characters as are useful: ``11.2 M``, ``29 kB``, ``950``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}{unit}"
    return f"{number:.0f} {unit}".strip()


def duration(seconds: float) -> str:
    """Seconds as a person would say them: ``4.2 s``, ``75 s``, ``2 min 05 s``, ``3 h 07 min``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
