"""The report of a study: a table in the terminal, ``runs.csv``, ``report.html``, and plots with their data."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import RunError
from headstart.runs.reader import RunRecord, read_runs, value_text
from headstart.system.atomic import atomic_write, write_json, write_rows
from headstart.system.regular import check_regular

if TYPE_CHECKING:
    from rich.console import RenderableType

    from headstart.study.analysis import Analysis, Difference
    from headstart.study.compare import Table
    from headstart.study.page import Cell, Section
    from headstart.study.verdict import Verdict

COSTS = ("total_seconds", "fit_seconds", "extract_seconds", "peak_memory_bytes", "images_seen", "stored_bytes")
"""The costs that are columns of ``runs.csv``, in this order, before the trainable parameters."""

PAGE, RUNS, PLOTS = "report.html", "runs.csv", "report"
LIST = ".files.json"
"""In the folder of plots: the names of those that the last report wrote."""


@dataclass(frozen=True)
class Report:
    """What was written, and what it says.

    Attributes:
        page: ``report.html``.
        runs_csv: ``runs.csv``.
        folder: of the plots and their data.
        analyses: one per table in which something is compared, with its verdict.
        runs: every run found.
        uncounted: name, status and reason of every run that no table counts.
    """

    page: Path
    runs_csv: Path
    folder: Path
    analyses: "tuple[tuple[Analysis, Verdict], ...]" = field(repr=False)
    runs: tuple[RunRecord, ...] = field(repr=False)
    uncounted: tuple[tuple[str, str, str], ...] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """What the page says, as plain containers: decisions, arms, comparisons, and the runs that no table counts."""
        return {
            "page": str(self.page),
            "tables": [_table_summary(analysis, words) for analysis, words in self.analyses],
            "uncounted": [dict(zip(("run", "status", "why"), row, strict=True)) for row in self.uncounted],
        }

    def _repr_html_(self) -> str:
        """The page itself, for a notebook."""
        from html import escape

        page = escape(self.page.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 44rem; border: 0"></iframe>'


def write_report(
    directory: str | Path,
    *,
    out: str | Path | None = None,
    contrast: str | None = None,
    reference: str | None = None,
    primary: str | None = None,
    metric: str | None = None,
) -> Report:
    """Read every run below ``directory`` and write the report.

    Args:
        directory: of the study.
        out: where to write; the directory itself by default.
        contrast: the axis to compare along, such as ``strategy`` or ``backbone``.
        reference: its value that the others are compared with.
        primary: its value whose comparison is the question, declared before looking; corrected apart from the others.
        metric: the one that decides, such as ``val/acc``.

    Raises:
        RunError: there is no run, or the asked-for metric is not in all of them.
    """
    from headstart.study.verdict import verdicts

    root = Path(directory)
    runs = read_runs(root)
    if not runs:
        raise RunError(f"'{root}' holds no run; give the folder of a study, such as outputs/<study>")
    target = Path(out) if out else root
    write_rows(target / RUNS, map(run_row, runs))
    tables, analyses = verdicts(runs, contrast=contrast, reference=reference, metric=metric, primary=primary)
    uncounted = tuple(_uncounted(runs, tables, {id(item.table) for item, _ in analyses}))
    folder = target / PLOTS
    report = Report(target / PAGE, target / RUNS, folder, tuple(analyses), tuple(runs), uncounted)
    with _plots(folder), atomic_write(report.page) as file:
        file.write(_page(root.resolve(), report, tables))
    return report


def run_row(run: RunRecord) -> dict[str, Any]:
    """A run as a row of ``runs.csv``: where it is, how it ended, its choices, metrics, costs and data."""
    weights, data = run.result.weights, run.result.data
    return {
        "run": run.name,
        "study": run.path.parent.name,
        "status": run.status,
        "reason": run.reason,
        **{key: value_text(value) for key, value in sorted(run.choices.items())},
        **dict(sorted(run.metrics.items())),
        **{name: run.costs[name] for name in (*COSTS, "trainable_parameters") if name in run.costs},
        **{f"weights_{key}": weights.get(key, "") for key in ("source", "sha256")},
        **{f"data_{key}": data.get(key, "") for key in ("name", "fingerprint")},
        "fingerprint": run.result.fingerprint,
    }


def print_report(report: Report) -> None:
    """Show the report's tables and verdicts in the terminal."""
    from rich.markup import escape
    from rich.text import Text

    from headstart.study.decision import cautions
    from headstart.study.sections import results_table
    from headstart.system.console import Legible, get_console, number, plain_table

    console = get_console()

    def say(shown: "RenderableType", *, unbroken: bool = False) -> None:
        console.print(Legible(shown), soft_wrap=unbroken)

    for analysis, words in report.analyses:
        columns, rows = results_table(analysis)
        places = _fitting(columns, rows, console.width)
        headings = (
            number(escape(columns[place].replace(" ", "\n"))) if rows[0][place].number else escape(columns[place])
            for place in places
        )
        grid = plain_table(escape(analysis.table.title), *headings)
        for cells in rows:
            shown = [cells[place] for place in places]
            grid.add_row(*(escape(f"{cell.text}\n{cell.small}" if cell.small else cell.text) for cell in shown))
        say(grid)
        say(Text(words.headline, style="bold"))
        for label, text in words.decision:
            say(Text.assemble("  ", (label, "bold"), f": {text}"))
        for point in (*words.points, *analysis.table.cautions, *cautions(analysis)):
            say(Text(f"  {point}"))
        console.print()
    if report.uncounted:
        grid = plain_table("Runs that are not counted", "run", "status", "why")
        for row in report.uncounted:
            grid.add_row(*map(escape, row))
        say(grid)
    if not report.analyses:
        console.print("Nothing to compare: there is one finished run, or none.")
    say(Text(str(report.page)), unbroken=True)


def _fitting(columns: "Sequence[str]", rows: "Sequence[Sequence[Cell]]", width: int) -> list[int]:
    """Places of the columns that fit into a terminal with no number and no word broken; the page has them all."""
    from headstart.study.scores import COST_WORDS

    def needed(place: int) -> int:
        lines = [text for row in rows for text in (row[place].text, row[place].small)]
        kept = lines if rows[0][place].number else " ".join(lines).split()
        return max(map(len, [*columns[place].split(), *kept]))

    metrics = range(columns.index("standing") + 2, columns.index("runs"))
    others = [columns.index(name) for name in (COST_WORDS["trainable_parameters"], "images fitted") if name in columns]
    places = list(range(len(columns)))
    for spare in [*reversed(metrics), *others]:
        if sum(map(needed, places)) + 3 * len(places) > width:
            places.remove(spare)
    return places


def _page(root: Path, report: Report, tables: "Sequence[Table]") -> str:
    from headstart.study.analysis import aggregate
    from headstart.study.page import Section, document, paragraph
    from headstart.study.sections import aggregate_section, analysis_sections, failed_section
    from headstart.study.tuning import tuning_section

    sections: list[Section] = []
    several = len(report.analyses) > 1
    analyses = [analysis for analysis, _ in report.analyses]
    for place, (analysis, words) in enumerate(report.analyses):
        parts = analysis_sections(analysis, words, report.folder, f"t{place + 1}-" if several else "")
        if several:
            parts = _grouped(parts, analysis.table, first=place == 0)
        sections += parts
    together = aggregate(analyses)
    if together:
        section = aggregate_section(together, analyses[0].metric, analyses[0].design.reference)
        sections.insert(1, section) if section else None
    if not sections:
        words_none = "Nothing to compare yet: there is one finished run, or none."
        sections.append(Section("verdict", "Verdict", paragraph(words_none)))
    tuning = tuning_section(root, report.folder)
    sections += [tuning] if tuning else []
    unfinished = failed_section(report.uncounted)
    sections += [unfinished] if unfinished else []
    done = sum(run.status == "done" for run in report.runs)
    failed = sum(run.status in ("failed", "unreadable") for run in report.runs)
    partial = len(report.runs) - done - failed
    counts = [
        f"{done} finished",
        *([f"{failed} failed"] if failed else []),
        *([f"{partial} unfinished"] if partial else []),
    ]
    lede = f"{len(report.runs)} runs: {', '.join(counts)}."
    if tables:
        lede += " " + _data_words(tables)
    footer = "Every plot is beside this page in the folder report, as PNG, SVG and CSV; every run is a row of runs.csv."
    return document(root.name, "Transfer-learning study", lede, sections, footer)


def _grouped(parts: "Sequence[Section]", table: "Table", *, first: bool) -> "list[Section]":
    from headstart.study.page import Section, paragraph

    # One link per table is enough; the first table's verdict is the top of the page already.
    linked = 1 if first else 0
    named = [
        Section(part.anchor, f"{table.title}: {part.title}", part.html, listed=place == linked)
        for place, part in enumerate(parts)
    ]
    if not first and table.reason:
        opening = named[0]
        reason = paragraph(f"In a table of its own because of {table.reason}.", "note")
        named[0] = Section(opening.anchor, opening.title, reason + opening.html)
    return named


def _data_words(tables: "Sequence[Table]") -> str:
    parts: list[str] = []
    for table in tables:
        data = table.runs[0].result.data
        sizes, classes = data["sizes"], data["classes"]
        facts = [f"{len(classes)} classes"] if isinstance(classes, list) else []
        facts += [f"{sizes[split]} images {words}" for split, words in _SPLITS.items() if sizes.get(split)]
        text = f"{table.identity.data} ({', '.join(facts)})" if facts else table.identity.data
        if text not in parts:
            parts.append(text)
    return f"Data: {'; '.join(parts)}. Checkpoints chosen by {tables[0].identity.selection}."


_SPLITS = {"val": "for validation", "test": "for testing"}


def _uncounted(runs: Sequence[RunRecord], tables: "Sequence[Table]", analysed: set[int]) -> list[tuple[str, str, str]]:
    from headstart.study.compare import kept_out

    rows: list[tuple[str, str, str]] = [(run.name, run.status, run.reason) for run in runs if run.status != "done"]
    rows += [(run.name, "set aside", why) for run in runs if run.status == "done" and (why := kept_out(run))]
    for table in tables:
        rows += [(run.name, "set aside", "same choices and seed as another run") for run in table.duplicates]
        if id(table) not in analysed and analysed:
            why = f"stands alone: {table.reason}" if table.reason else "nothing to compare it with"
            rows += [(run.name, "set aside", why) for run in table.runs]
    return rows


@contextmanager
def _plots(folder: Path) -> Iterator[None]:
    """Within the block plots are written; those of an earlier report go, as it listed them, and nothing else does."""
    try:
        check_regular(folder / LIST)
        earlier = json.loads((folder / LIST).read_bytes())
    except (OSError, ValueError, RecursionError):
        earlier = None
    for name in earlier if isinstance(earlier, list) else ():
        if isinstance(name, str) and Path(name).name == name and name.endswith((".png", ".svg", ".csv")):
            (folder / name).unlink(missing_ok=True)
    before = _states(folder)
    try:
        yield
    finally:
        if written := sorted(name for name, state in _states(folder).items() if before.get(name) != state):
            write_json(folder / LIST, written)


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    files = [path for path in folder.glob("*") if path.is_file() and path.name != LIST]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def _table_summary(analysis: "Analysis", words: "Verdict") -> dict[str, Any]:
    from headstart.study.analysis import from_scratch
    from headstart.study.decision import cautions

    layout, scratch = analysis.design, from_scratch(analysis.table, analysis.design)
    return {
        "title": analysis.table.title,
        "metric": analysis.metric.name,
        "contrast": layout.contrast,
        "reference": layout.reference,
        "decision": {
            "take": words.chosen.take,
            "headline": words.headline,
            **{label.lower().replace(" ", "_"): text for label, text in words.decision},
            "tied_with_the_best": list(words.chosen.tied),
        },
        "comparisons": list(words.points),
        "cautions": [*analysis.table.cautions, *cautions(analysis)],
        "arms": [
            {
                "value": arm.value,
                **dict(zip(layout.axes, arm.setting, strict=True)),
                "tied_with_the_best": arm.value in analysis.best[arm.setting],
                "metrics": {name: asdict(mean) for name, mean in arm.metrics.items()},
                "costs": {name: mean.mean for name, mean in arm.costs.items()},
                "runs": len(arm.seeds),
                "no_randomness": arm.exact,
                "images_fitted": arm.fitted,
                "still_learning": arm.unconverged,
                "flattered_by": arm.flattered,
            }
            for arm in analysis.arms
        ],
        "differences": [_difference_summary(analysis, item, layout.reference) for item in analysis.differences],
        "gains": [_difference_summary(analysis, item, scratch) for item in analysis.gains if scratch],
    }


def _difference_summary(analysis: "Analysis", item: "Difference", reference: str) -> dict[str, Any]:
    paired = item.paired
    place = {"value": item.value, **dict(zip(analysis.design.axes, item.setting, strict=True))}
    judged = {
        "verdict": item.verdict,
        "covers": str(analysis.scope(item.setting, item.value, reference)),
        "comparisons": item.family,
    }
    if paired is None:
        return place | judged
    numbers = {"difference": paired.mean, "low": paired.low, "high": paired.high, "p": paired.p, "n": paired.n}
    return place | numbers | judged | {"could_have_been_seen": paired.detectable()}
