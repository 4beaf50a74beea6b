"""The sections of the page for one table of a study. A section without data is left out."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from headstart.plots.style import SERIES
from headstart.runs.reader import RunRecord, StoredPredictions
from headstart.study import curves, scores
from headstart.study.analysis import DASH, Analysis, Arm, Difference, Metric, cost_columns, cost_text, from_scratch
from headstart.study.compare import short_name
from headstart.study.decision import cautions
from headstart.study.labels import Sheet
from headstart.study.mistakes import (
    changed_images,
    class_name,
    confusion,
    confusions,
    evaluated_split,
    mix_ups,
    of_each_class,
    predictions_of,
    reliability,
)
from headstart.study.page import (
    Cell,
    Section,
    bullets,
    data_table,
    figures,
    glossary,
    heading,
    paragraph,
    table,
    verdict_box,
)
from headstart.study.statistics import Aggregate, MeanInterval
from headstart.study.thumbnails import thumbnails
from headstart.study.verdict import GLOSSARY, Verdict, main_setting, p_text, why_too_few
from headstart.system.atomic import write_rows

MOST_IMAGES = 12
_MOST_METRICS, _MOST_ARMS = 2, 8
_MOST_CLASSES = 20

_VERDICT_WORDS = {
    "better": ("better", "better"),
    "worse": ("worse", "worse"),
    "no difference": ("no significant difference", "unsure"),
    "too few": ("too few seeds to tell", "unsure"),
    "unpaired": ("no paired seeds", "unsure"),
}


def analysis_sections(analysis: Analysis, verdict: Verdict, folder: Path, prefix: str) -> list[Section]:
    """Everything the page says about one table; writes the plots' files into ``folder``."""
    runs, sheet = predictions_of(analysis, main_setting(analysis)), Sheet(analysis, folder, prefix)
    parts = [
        ("verdict", "Verdict", _verdict(analysis, verdict)),
        ("results", "Results", _results(sheet)),
        ("differences", "Paired differences", _differences(sheet)),
        ("shots", "How many images does it take?", figures(curves.shots(sheet))),
        ("cost", "What it costs", _costs(sheet)),
        ("gain", "What pretraining brings", _gain(sheet)),
        ("learning", "Learning curves", figures(curves.learning(sheet))),
        ("drift", "What moved", figures([curves.drift(sheet)])),
        ("calibration", "Can its confidence be trusted?", figures([reliability(sheet, runs)])),
        ("confusion", "What is taken for what", _confusion(sheet, runs)),
        ("images", "Images on which they disagree", _changed(sheet, runs)),
    ]
    return [Section(f"{prefix}{anchor}", title, html) for anchor, title, html in parts if html]


def results_table(analysis: Analysis, arms: Sequence[Arm] | None = None) -> tuple[list[str], list[list[Cell]]]:
    """Scores with their intervals and costs beside them: names of the columns, and a row for each arm, best first."""
    others = sorted(analysis.metrics[1:], key=lambda metric: metric.name.split("/")[-1] not in ("acc", "f1", "auroc"))
    shown = [analysis.metric, *others[: _MOST_METRICS - 1]]
    costs = [name for name in cost_columns(analysis.arms) if name != "peak_memory_bytes"]
    rows = [
        [
            *_place_cells(analysis, arm),
            _standing(analysis, arm),
            *(_interval(metric, arm.metrics.get(metric.name)) for metric in shown),
            Cell("1" if arm.exact else str(len(arm.seeds)), "no randomness" if arm.exact else "", number=True),
            Cell(f"{arm.fitted:,}", number=True),
            *(
                Cell(cost_text(name, arm.costs[name].mean) if name in arm.costs else DASH, number=True)
                for name in costs
            ),
        ]
        for arm in (analysis.arms if arms is None else arms)
    ]
    scored, costing = [metric.label for metric in shown], [scores.COST_WORDS[name] for name in costs]
    return [*_place_columns(analysis), "standing", *scored, "runs", "images fitted", *costing], rows


def aggregate_section(found: Mapping[tuple[str, str], Aggregate], metric: Metric, reference: str) -> Section | None:
    """Several data sets in two numbers."""
    if not found:
        return None
    rows = [
        [
            Cell(f"{value}, {place}" if place else value),
            Cell(metric.gap(item.iqm), _range(metric.gap, item.iqm_low, item.iqm_high), number=True),
            Cell(_share(item.improvement), _range(_share, item.improvement_low, item.improvement_high), number=True),
            Cell(str(item.datasets), number=True),
            Cell(str(item.n), number=True),
        ]
        for (value, place), item in found.items()
    ]
    columns = ["", f"interquartile mean difference, {metric.unit}".rstrip(", "), "chance of improvement"]
    words = (
        f"Over several data sets: the mean of the middle half of all paired differences from {reference}, and the "
        f"chance that a run beats a run of {reference} on the same data. The 95 % intervals are a bootstrap that "
        "draws the seeds again within each data set."
    )
    return Section(
        "all-data", "All data sets together", paragraph(words) + table([*columns, "data sets", "pairs"], rows)
    )


def failed_section(rows: Sequence[tuple[str, str, str]]) -> Section | None:
    """Runs that did not finish or may not be compared: name, what happened, why."""
    if not rows:
        return None
    cells = [[Cell(name), Cell(status), Cell(reason)] for name, status, reason in rows]
    words = "Nothing above counts these runs. The same command runs again what is missing or failed."
    return Section("unfinished", "Runs that are not counted", paragraph(words) + table(["run", "status", "why"], cells))


def _verdict(analysis: Analysis, verdict: Verdict) -> str:
    notes = [*analysis.table.cautions, *cautions(analysis)]
    for axis, follows in analysis.design.tied.items():
        values = _with_others(follows)
        notes.append(f"{axis} goes with {analysis.design.contrast} ({values}); their effects cannot be told apart.")
    words = {value: GLOSSARY[value] for value in analysis.design.values if value in GLOSSARY}
    behind = [*verdict.points, *notes]
    box = verdict_box(verdict.headline, verdict.decision) + glossary(words)
    return box + (paragraph("Behind it", "kicker") + bullets(behind) if behind else "")


def _with_others(follows: Mapping[str, str]) -> str:
    """Which value goes with which; what most have in common is said once."""
    usual, count = Counter(follows.values()).most_common(1)[0]
    said = [f"{value}: {other}" for value, other in follows.items() if other != usual or count < 3]
    return ", ".join([*said, *([f"all others: {usual}"] if count >= 3 else [])])


def _results(sheet: Sheet) -> str:
    analysis = sheet.analysis
    caption = (
        "Means over the runs, the best first, with their 95 % interval below, which allows for what the verdict names. "
        "Tied: it cannot be told from the best one."
    )
    tied = [arm for arm in analysis.arms if arm.value in analysis.best[arm.setting]]
    rest = [arm for arm in analysis.arms if arm not in tied]
    if len(analysis.arms) <= _MOST_ARMS or not rest:
        html = table(*results_table(analysis), caption)
    else:
        html = heading("Cannot be told from the best") + table(*results_table(analysis, tied), caption)
        html += heading("Behind the best") + table(*results_table(analysis, rest))
    everything = [
        sheet.columns(arm)
        | {name: mean.mean for name, mean in arm.metrics.items()}
        | {name: mean.mean for name, mean in arm.costs.items()}
        for arm in analysis.arms
    ]
    return html + data_table(everything, "All metrics and costs") + figures([scores.scores(sheet)])


def _differences(sheet: Sheet) -> str:
    analysis = sheet.analysis
    if not analysis.differences:
        return ""
    scope = analysis.scope(main_setting(analysis))
    words = (
        f"Runs with the same seed{' and setting' if analysis.design.axes else ''} see the same split and the same "
        f"order of images, so they are compared in pairs. What the interval allows for: {scope}. The p-value asks how "
        "often a difference this large would come out if there were none (Student's t, two-sided). Of several "
        "comparisons p-values and intervals are corrected by Holm's method, all of this table together."
    )
    plot = scores.differences(sheet, analysis.differences, analysis.design.reference, "differences")
    return paragraph(words) + _difference_table(analysis, analysis.differences) + figures([plot])


def _difference_table(analysis: Analysis, items: Sequence[Difference]) -> str:
    metric = analysis.metric
    rows = []
    for item in items:
        words, kind = _VERDICT_WORDS[item.verdict]
        paired = item.paired
        interval = _range(metric.gap, paired.low, paired.high) if paired else ""
        why = (
            why_too_few(item)
            if item.verdict == "too few"
            else "the question declared beforehand"
            if item.primary
            else ""
        )
        rows.append(
            [
                *_place_cells(analysis, item),
                Cell(metric.gap(paired.mean) if paired else DASH, interval, number=True),
                Cell(str(paired.n) if paired else "0", number=True),
                Cell(p_text(paired.p).removeprefix("p = ") if paired else DASH, number=True),
                Cell(words, why, kind=kind),
            ]
        )
    unit = f"difference, {metric.unit}".rstrip(", ")
    corrected = "p, corrected" if any(item.family > 1 for item in items) else "p"
    return table([*_place_columns(analysis), unit, "pairs", corrected, "verdict"], rows)


def _costs(sheet: Sheet) -> str:
    words = (
        "Times are means over seeds, and cold: activations that came from a cache count what it took to build them. "
        "Stored per task is what each further task adds to the disk: four bytes for each number that training moves."
    )
    drawn = figures(scores.cost(sheet, name) for name in cost_columns(sheet.analysis.arms))
    return paragraph(words) + drawn if drawn else ""


def _gain(sheet: Sheet) -> str:
    analysis, scratch = sheet.analysis, from_scratch(sheet.analysis.table, sheet.analysis.design)
    if not analysis.gains or scratch is None or scratch == analysis.design.reference:
        return ""
    words = (
        f"Transfer gain is the score minus that of the same network trained from random weights ({scratch}). "
        "Below zero, pretraining hurt."
    )
    plot = scores.differences(sheet, analysis.gains, scratch, "transfer-gain")
    return paragraph(words) + _difference_table(analysis, analysis.gains) + figures([plot])


def _confusion(sheet: Sheet, runs: Mapping[str, Sequence[StoredPredictions]]) -> str:
    analysis, rows = sheet.analysis, []
    for value, members in runs.items():
        counts, classes = confusion(members), members[0].classes
        recall = counts.diagonal() / counts.sum(axis=1).clip(min=1)
        hardest = int(min((place for place in range(len(counts)) if counts[place].sum()), key=lambda p: recall[p]))
        worst = Cell(f"{class_name(classes, hardest)}, {100 * recall[hardest]:.0f} % right")
        rows.append([_name(analysis, value), worst, Cell(mix_ups(counts, classes) or "none")])
    if not rows:
        return ""
    columns = [analysis.design.contrast, "hardest class", "most often mistaken"]
    return table(columns, rows, _place(analysis)) + _class_by_class(sheet, runs) + figures(confusions(sheet, runs))


def _class_by_class(sheet: Sheet, runs: Mapping[str, Sequence[StoredPredictions]]) -> str:
    """F1 of each class under each value, with precision and recall, over all its runs; all of it in ``classes.csv``."""
    first = next(iter(runs.values()))[0]
    classes, images = first.classes, np.bincount(first.targets, minlength=len(first.classes))
    found = {value: of_each_class(confusion(members)) for value, members in runs.items()}
    everything = [
        {"class": name, "images": int(images[place]), "value": value}
        | {key: scores[place] for key, scores in found[value].items()}
        for place, name in enumerate(classes)
        for value in found
    ]
    write_rows(sheet.folder / f"{sheet.prefix}classes.csv", everything)
    html = data_table(everything, "Precision, recall and F1 of each class")
    shown = list(found)[:_MOST_ARMS]
    if not 2 < len(classes) <= _MOST_CLASSES:
        return html
    rows = [
        [Cell(name), Cell(f"{images[place]:,}", number=True)]
        + [
            Cell(
                _percent(found[value]["f1"][place]),
                f"{_percent(found[value]['precision'][place])} / {_percent(found[value]['recall'][place])}",
                number=True,
            )
            for value in shown
        ]
        for place, name in enumerate(classes)
    ]
    words = "F1 of each class in percent, below it precision / recall, over all runs."
    return heading("Class by class") + table(["class", "images", *shown], rows, words) + html


def _percent(share: float) -> str:
    return DASH if np.isnan(share) else f"{100 * share:.0f}"


def _changed(sheet: Sheet, runs: Mapping[str, Sequence[StoredPredictions]]) -> str:
    analysis = sheet.analysis
    baseline = from_scratch(analysis.table, analysis.design)
    if len(runs) > 2:
        # Training from random weights differs on most images and would drown the interesting ones.
        runs = {value: members for value, members in runs.items() if value != baseline}
    changed = changed_images(runs)
    if not changed:
        return ""
    write_rows(
        sheet.folder / f"{sheet.prefix}changed-images.csv",
        [
            {"image": item.id, "true": item.target}
            | {f"{value}: predicted": said for value, said in item.predicted.items()}
            | {f"{value}: seeds right": share for value, share in item.right.items()}
            for item in changed
        ],
    )
    shown_items = changed[:MOST_IMAGES]
    pictures = thumbnails(_any_run(analysis), [item.id for item in shown_items])
    rows = [
        [
            Cell(item.id, picture=pictures.get(item.id)),
            Cell(item.target),
            *(
                Cell(
                    f"{item.predicted[value]} {'✓' if item.predicted[value] == item.target else '✗'}",
                    f"{100 * item.right[value]:.0f} % of seeds right",
                    kind="better" if item.predicted[value] == item.target else "worse",
                )
                for value in runs
            ),
        ]
        for item in shown_items
    ]
    images = len(next(iter(runs.values()))[0].ids)
    split = {"val": "validation"}.get(evaluated_split(analysis), "test")
    shown = f" The clearest {len(rows)} are shown; changed-images.csv has all." if len(changed) > len(rows) else ""
    words = f"Of {images} {split} images, {len(changed)} are usually classified differently.{shown}"
    return paragraph(words) + table(["image", "true class", *runs], rows, _place(analysis))


def _any_run(analysis: Analysis) -> RunRecord:
    """One of those whose predictions are shown."""
    setting = main_setting(analysis)
    cells = (analysis.design.cells.get((value, setting), {}) for value in analysis.design.values)
    return next(run for cell in cells for run in cell.values())


def _place(analysis: Analysis) -> str:
    place = analysis.design.setting_text(main_setting(analysis))
    return f"Shown for {place}." if place else ""


def _standing(analysis: Analysis, arm: Arm) -> Cell:
    early = "still learning when it ended" if arm.unconverged else ""
    if arm.value not in analysis.best[arm.setting]:
        return Cell("behind", early, kind="worse")
    alone = len(analysis.best[arm.setting]) == 1
    return Cell("best" if alone else "tied", early, kind="better" if alone else "unsure")


def _place_columns(analysis: Analysis) -> list[str]:
    return [analysis.design.contrast, *(short_name(axis) for axis in analysis.design.axes)]


def _place_cells(analysis: Analysis, item: Arm | Difference) -> list[Cell]:
    return [_name(analysis, item.value), *(Cell(part) for part in item.setting)]


def _name(analysis: Analysis, value: str) -> Cell:
    return Cell(value, swatch=analysis.design.values.index(value) % len(SERIES) + 1)


def _interval(metric: Metric, mean: MeanInterval | None) -> Cell:
    if mean is None:
        return Cell(DASH, number=True)
    return Cell(metric.text(mean.mean), _range(metric.text, mean.low, mean.high), number=True)


def _range(text: Callable[[float], str], low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{text(low)} to {text(high)}"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"
