"""What a run says on the terminal, and the same as plain text in a log.

Renderables are built by pure functions and shown by :func:`show`, which also copies them into the run's log.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 120
"""Columns of a log; a terminal has its own."""

# The file is looked up at each print, so that redirected and captured output is followed.
_console = Console(highlight=False, soft_wrap=False)
_copies: list[Path] = []
_unseen: list[bool] = []


def get_console() -> Console:
    """The console that everything is shown on: standard output."""
    return _console


def is_terminal() -> bool:
    """Whether a person is watching standard output in a terminal that can redraw lines."""
    return _console.is_terminal and not _console.is_dumb_terminal


def show(renderable: RenderableType) -> None:
    """Print a table, text or string, with colours on a terminal; copy it into the log of :func:`copied_to`."""
    # Paths and messages in plain strings are not markup, and are never broken into lines.
    text = Text(renderable) if isinstance(renderable, str) else renderable
    unbroken = isinstance(text, Text)
    if _unseen:
        pass
    elif _console.is_terminal:
        _console.print(text, soft_wrap=unbroken)
    else:
        _plain(_console.file).print(text, soft_wrap=unbroken)
    for path in _copies:
        with path.open("a", encoding="utf-8") as file:
            _plain(file).print(text, soft_wrap=unbroken)


def _plain(file: IO[str]) -> Console:
    return Console(file=file, width=PLAIN_WIDTH, no_color=True, highlight=False)


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


def plain_table(title: str = "") -> Table:
    """An empty table with a line under its heading, as every command shows one; ``title`` may hold markup."""
    return Table(
        title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
    )


def audit_table(rows: Iterable[Any], *, title: str = "") -> Table:
    """What will learn, a stage a line: parameters, how many learn, effective learning rate, mode.

    Args:
        rows: :class:`headstart.training.audit.StageRow` objects or mappings with the same names.
        title: above the table, for example the phase.
    """
    table = plain_table(title)
    table.add_column("stage", no_wrap=True)
    for name in ("parameters", "trainable"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("learning rate", justify="right", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    parameters = trainable = 0
    for row in map(_fields, rows):
        learns = row["trainable"] > 0
        parameters, trainable = parameters + row["parameters"], trainable + row["trainable"]
        table.add_row(
            row["stage"],
            f"{row['parameters']:,}",
            f"{row['trainable']:,}" if learns else "frozen",
            _rates(row["lr"]),
            row["mode"],
            style="" if learns else "dim",
        )
    table.add_section()
    table.add_row("all", f"{parameters:,}", f"{trainable:,}", "", "", style="bold")
    return table


def weights_notice(weights: Any) -> Text:
    """One line saying which weights the backbone starts from; random ones are said loudly.

    Args:
        weights: a :class:`headstart.backbones.contract.WeightsReport`, or the ``weights`` section of ``result.json``.
    """
    report = _fields(weights)
    if report["source"] in ("none", ""):
        return Text("RANDOM WEIGHTS: the backbone starts untrained (backbone.weights=none).", style="bold red")
    text = Text("Weights: ").append(str(report["source"]), style="bold")
    details = [f"sha256 {report['sha256'][:12]}"] if report.get("sha256") else []
    details.append(f"{_number(report['matched'])} tensors matched")
    details += [f"{_number(report[key])} {key}" for key in ("missing", "unexpected") if report.get(key)]
    if report.get("licence"):
        details.append(f"licence {report['licence']}")
    return text.append(f" ({', '.join(details)})")


def end_table(result: Any) -> Table:
    """Splits by metrics of a finished run; a missing test split is said.

    Args:
        result: a :class:`headstart.runs.result.Result`, or the content of ``result.json``.
    """
    metrics: Mapping[str, float | None] = _fields(result)["metrics"]
    splits = list(dict.fromkeys(name.rpartition("/")[0] for name in metrics))
    names = list(dict.fromkeys(name.rpartition("/")[2] for name in metrics))
    names.sort(key=lambda name: (name == "loss", name != "acc"))
    table = plain_table()
    table.add_column("split", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for split in splits:
        table.add_row(split, *(_metric(metrics.get(f"{split}/{name}")) for name in names))
    if "test" not in splits:
        table.add_row("test", *(["none"] + [""] * (len(names) - 1))[: len(names)], style="dim")
    return table


def result_summary(result: Any) -> Group:
    """The end table with seconds, trainable parameters and the weights used below it."""
    values = _fields(result)
    cost, params = values.get("cost") or {}, values.get("params") or {}
    lines: list[RenderableType] = [end_table(values)]
    if cost:
        parts = [f"{_duration(cost['total_seconds'])} in total, {_duration(cost['fit_seconds'])} training"]
        if cost.get("extract_seconds"):
            parts.append(f"{_duration(cost['extract_seconds'])} extracting features")
        parts += [f"{cost['images_seen']:,} images"] if cost.get("images_seen") else []
        parts += [f"peak {cost['peak_memory_bytes'] / 2**30:.2f} GiB"] if cost.get("peak_memory_bytes") else []
        parts += [str(cost["device"])] if cost.get("device") else []
        lines.append(Text("Cost: " + ", ".join(parts)))
    if params:
        share = params["trainable"] / max(params["total"], 1)
        lines.append(Text(f"Trainable parameters: {params['trainable']:,} of {params['total']:,} ({share:.2%})"))
    if values.get("weights"):
        lines.append(weights_notice(values["weights"]))
    if skipped := (values.get("data") or {}).get("bad"):
        lines.append(Text(f"{len(skipped)} unreadable images were skipped; result.json names them.", style="yellow"))
    return Group(*lines)


def show_result(result: Any, run_dir: str | Path, *, returned: bool = False) -> None:
    """Show a finished run and where it is.

    Args:
        result: a :class:`headstart.runs.result.Result`, or the content of ``result.json``.
        run_dir: the run directory.
        returned: the run was there already and nothing was trained.
    """
    if returned:
        show(Text("Already done; nothing was trained (rerun=all trains it again).", style="yellow"))
    show(result_summary(result))
    show(Text("Run directory: ").append(str(run_dir), style="bold"))


def _fields(value: Any) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(value)


def _rates(lr: Any) -> str:
    if lr is None:
        return "-"
    low, high = lr if isinstance(lr, list | tuple) else (lr, lr)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _metric(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}" if abs(value) < 1000 else f"{value:.5g}"


def _number(value: Any) -> str:
    return f"{value if isinstance(value, int) else len(value):,}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
