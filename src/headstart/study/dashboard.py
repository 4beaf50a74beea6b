"""A workspace and a report of Weights & Biases for a study, through the ``wandb-workspaces`` library.

What they show is decided by the study's own run directories, so it can be written and checked without a network; with
one, it is saved where the runs are.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import RunError
from headstart.runs.reader import RunRecord, read_runs
from headstart.system.extras import require_extra

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

SPECIFICATION = "wandb_dashboard.json"
FORMAT = 1
_COSTS = {"cost/total_seconds": "seconds", "params/trainable": "trainable parameters"}
_NO_LOGIN = "saving a dashboard needs an account: run `wandb login`, or set WANDB_API_KEY; without --save it is a file"


@dataclass(frozen=True)
class Shown:
    """What there is to show of a study.

    Attributes:
        study: its group in Weights & Biases.
        project: where its runs are.
        entity: the account or team; empty for the default one.
        scores: metrics that decide, the test's first.
        curves: what is logged each epoch.
        stages: of the backbone, in order; empty where no drift was recorded.
        splits: with a confusion matrix.
        pictures: names of pictures in each run.
        verdict: the report's own words, as Markdown.
        gains: transfer gain by strategy, as Markdown; empty without a baseline from random weights.
    """

    study: str
    project: str
    entity: str
    scores: tuple[str, ...]
    curves: tuple[str, ...]
    stages: tuple[str, ...]
    splits: tuple[str, ...]
    pictures: tuple[str, ...]
    verdict: str
    gains: str


def look_at(directory: str | Path, *, project: str | None = None, entity: str | None = None) -> Shown:
    """Read a study's runs.

    Args:
        directory: of the study.
        project: in place of the one that the runs were logged to.
        entity: likewise.

    Raises:
        RunError: there is no finished run.
    """
    root = Path(directory)
    runs = [run for run in read_runs(root) if run.status == "done"]
    if not runs:
        raise RunError(f"'{root}' holds no finished run; give the folder of a study, such as outputs/<study>")
    first = runs[0]
    monitor = str(first.result.details.get("monitor", "val/acc"))
    name = monitor.partition("/")[2]
    scores = tuple(score for score in (f"test/{name}", monitor) if all(score in run.metrics for run in runs))
    logged = {key for run in runs for row in run.history for key in row}
    splits = tuple(split for split in ("test", "val") if first.predictions(split) is not None)
    verdict, gains = _words(runs)
    group = first.composed.get("logger.wandb.group")
    return Shown(
        study=str(group or first.choices.get("name") or first.composed.get("name") or root.resolve().name),
        project=project or str(first.composed.get("logger.wandb.project") or "headstart"),
        entity=entity or str(first.composed.get("logger.wandb.entity") or ""),
        scores=scores or (monitor,),
        curves=tuple(curve for curve in (monitor, "val/loss", "train/loss") if curve in logged),
        stages=tuple(dict.fromkeys(stage for run in runs for stage, _ in run.drift)),
        splits=splits if isinstance(first.result.data["classes"], list) else (),
        pictures=tuple(sorted({f"plots/{path.stem}" for run in runs for path in run.path.glob("plots/*.png")})),
        verdict=verdict,
        gains=gains,
    )


def build_workspace(shown: Shown) -> "Workspace":
    """The interactive page: runs grouped by study and strategy, sections of panels.

    Raises:
        ConfigError: the library is missing.
    """
    require_extra("a dashboard", "wandb")
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(title, panels=panels, is_open=place < 3)
        for place, (title, panels) in enumerate(_panels(shown).items())
    ]
    return ws.Workspace(
        entity=shown.entity,
        project=shown.project,
        name=f"{shown.study}: strategies compared",
        sections=sections,
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == shown.study],
            groupby=[ws.Metric("Group"), ws.Config("strategy")],
            pinned_columns=[f"summary:{score}" for score in shown.scores],
        ),
    )


def build_report(shown: Shown) -> "Report":
    """The page to read: the verdict in words, then the same panels.

    Raises:
        ConfigError: the library is missing.
    """
    require_extra("a dashboard", "wandb")
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.H1("Verdict"), wr.MarkdownBlock(shown.verdict)]
    for title, panels in _panels(shown).items():
        # No project of its own: that of the report, which needs no look-up.
        group = expr.Metric("Group") == shown.study
        runset = wr.Runset(name=shown.study, filters=[group], groupby=["Group", "config.strategy.value"])
        blocks += [wr.H2(title), wr.PanelGrid(runsets=[runset], panels=panels)]
    return wr.Report(
        entity=shown.entity,
        project=shown.project,
        title=f"{shown.study}: is feature extraction enough?",
        description="Written by headstart from the study's runs.",
        blocks=blocks,
        width="fluid",
    )


def specification(shown: Shown) -> dict[str, Any]:
    """Both pages as plain containers, as the library sends them."""
    parts = {"workspace": build_workspace(shown)._to_model(), "report": build_report(shown)._to_model()}
    plain = {name: json.loads(part.model_dump_json(by_alias=True, exclude_none=True)) for name, part in parts.items()}
    where = {"study": shown.study, "project": shown.project, "entity": shown.entity}
    return {"format": FORMAT, **where, **plain}


def read_specification(path: str | Path) -> "tuple[Workspace, Report]":
    """Both pages from a file, checked by the library.

    Raises:
        ConfigError: the library is missing.
        RunError: the file is no specification, or the library does not take it.
    """
    require_extra("a dashboard", "wandb")
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.reports.v2.internal import ReportViewspec
    from wandb_workspaces.workspaces import Workspace
    from wandb_workspaces.workspaces.internal import View

    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        view, viewspec = View.model_validate(values["workspace"]), ReportViewspec.model_validate(values["report"])
        return Workspace._from_model(view), Report._from_model(viewspec)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no specification of a dashboard: {' '.join(str(error).split())[:300]}") from None


def unknown_keys(shown: Shown, directory: str | Path) -> tuple[list[str], int]:
    """What the panels ask for and no run of the study has logged, and how many offline runs wait to be uploaded."""
    known: set[str] = set()
    for run in read_runs(directory):
        known |= {*run.metrics, *(key for row in run.history for key in row)}
        known |= {*(f"cost/{name}" for name in run.costs), *(f"params/{name}" for name in run.result.params)}
        known |= {f"drift/{stage}" for stage, _ in run.drift}
    wanted = {*shown.scores, *shown.curves, *_COSTS, *(f"drift/{stage}" for stage in shown.stages)}
    return sorted(wanted - known), len(list(Path(directory).rglob("offline-run-*/run-*.wandb")))


def save(shown: Shown) -> list[str]:
    """Save both pages; returns their addresses.

    Raises:
        RunError: nobody is logged in, or the server refuses.
    """
    from dataclasses import replace

    import wandb

    try:
        account = wandb.Api()
    except Exception as error:
        raise RunError(f"{_NO_LOGIN} ({' '.join(str(error).split())})") from None
    try:
        shown = replace(shown, entity=shown.entity or str(account.default_entity))
        return [build_workspace(shown).save().url, build_report(shown).save().url]
    except Exception as error:
        raise RunError(
            f"{shown.entity or 'your account'}/{shown.project} did not take the dashboard: "
            f"{' '.join(str(error).split())}; upload the runs first (wandb sync), and check --entity and --project"
        ) from None


def _panels(shown: Shown) -> dict[str, list[Any]]:
    """Sections and their panels; every value is averaged over the seeds of a strategy."""
    import wandb_workspaces.reports.v2 as wr

    wide, half = wr.Layout(w=24, h=9), wr.Layout(w=12, h=9)
    by: dict[str, Any] = {"groupby": wr.Config("strategy"), "groupby_aggfunc": "mean"}
    bars = {**by, "groupby_rangefunc": "stderr", "orientation": "h"}

    def bar(title: str, names: Iterable[str], layout: Any) -> Any:
        return wr.BarPlot(title=title, metrics=[wr.SummaryMetric(name) for name in names], layout=layout, **bars)

    def line(name: str) -> Any:
        return wr.LinePlot(
            title=name, x="epoch", y=[name], groupby_rangefunc="stderr", smoothing_type="none", layout=half, **by
        )

    def scatter(cost: str, title: str) -> Any:
        return wr.ScatterPlot(
            title=f"{shown.scores[0]} against {title}",
            x=wr.SummaryMetric(cost),
            y=wr.SummaryMetric(shown.scores[0]),
            log_x=True,
            layout=half,
        )

    found = {
        "Accuracy by strategy": [bar(f"{score} by strategy", [score], half) for score in shown.scores],
        "Learning curves": [line(curve) for curve in shown.curves],
        "Cost against accuracy": [scatter(cost, title) for cost, title in _COSTS.items()],
        "Transfer gain": [wr.MarkdownPanel(markdown=shown.gains, layout=wide)] if shown.gains else [],
        "What moved, by stage": [bar("drift from the start, relative", (f"drift/{s}" for s in shown.stages), wide)],
        "Confusion": [_confusion(split, half) for split in shown.splits],
    }
    if not shown.stages:
        del found["What moved, by stage"]
    if shown.pictures:
        found["Pictures"] = [wr.MediaBrowser(title="Plots of each run", media_keys=list(shown.pictures), layout=wide)]
    return {title: panels for title, panels in found.items() if panels}


def _confusion(split: str, layout: Any) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{split}/confusion_matrix_table"}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields={name: name for name in ("Actual", "Predicted", "nPredictions")},
        chart_strings={"title": f"{split}: what is taken for what"},
        layout=layout,
    )


def _words(runs: Sequence[RunRecord]) -> tuple[str, str]:
    """The report's verdict and the transfer gains, as Markdown."""
    from headstart.study.analysis import from_scratch
    from headstart.study.verdict import verdicts

    texts, gains = [], []
    for analysis, found in verdicts(runs)[1]:
        points = [*(f"{label}: {text}" for label, text in found.decision), *found.points]
        texts.append("\n".join([f"**{found.headline}**", "", *(f"- {point}" for point in points)]))
        rows = [
            f"| {item.value} | {analysis.metric.gap(item.paired.mean)} | {item.paired.n} |"
            for item in analysis.gains
            if item.paired is not None
        ]
        if rows:
            scratch = from_scratch(analysis.table, analysis.design)
            gains.append("\n".join([f"| strategy | minus {scratch} | seeds |", "|---|---|---|", *rows]))
    return "\n\n".join(texts) or "Nothing to compare yet.", "\n\n".join(gains)
