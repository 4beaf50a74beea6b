"""The page of an advice: the recommendation, and all that it rests on."""

from pathlib import Path
from typing import Any

from headstart.inspection.facts import Inspection
from headstart.plots.style import BLUE, MUTED, Plot, canvas, counted, finish
from headstart.ranking.advice_words import points, recommendation
from headstart.ranking.advise import PLOTS, Advice
from headstart.ranking.curve import LearningCurve
from headstart.ranking.show import absent_section, costs_table, draw_ranking, reading, scores_table
from headstart.study.page import Cell, Section, bullets, document, escape, figures, paragraph, table, verdict_box
from headstart.study.tuning import tuning_section
from headstart.system.atomic import atomic_write
from headstart.system.console import duration

PAGE = "advice.html"


def write_advice(advice: Advice) -> Path:
    """Write ``advice.html`` with its plots into the folder of the runs; returns the page."""
    folder = advice.folder / PLOTS
    ranked = draw_ranking(advice.ranking, folder)
    curve = draw_curve(advice.curve, folder) if advice.curve is not None else None
    command = f"<pre><code>{escape(advice.command)}</code></pre>"
    sections = [
        Section("advice", "Advice", verdict_box(recommendation(advice), points(advice)) + command),
        Section("data", "The images", _images(advice.inspection)),
        Section("networks", "The networks", figures([ranked]) + scores_table(advice.ranking)),
        Section("trainings", "What was trained", _trainings(advice)),
        *([tuning] if (tuning := tuning_section(advice.folder, folder)) else []),
        Section("images", "More images", figures([curve]) if curve else paragraph("There are too few to say.")),
        Section("costs", "What they cost", costs_table(advice.ranking)),
        *absent_section(advice.ranking),
        Section("reading", "How to read this", reading(advice.ranking)),
    ]
    used = f"{duration(advice.spent_s)} of {duration(advice.budget_s)}"
    networks, trainings = len(advice.ranking.networks), sum(1 + len(one.again) for one in advice.tried)
    lede = f"{counted(networks, 'network')} scored and {counted(trainings, 'training')} in {used}."
    footer = f"Every training is an ordinary run beside this page; compare them with: headstart report {advice.folder}"
    with atomic_write(advice.folder / PAGE) as file:
        file.write(document(advice.data, "Advice", lede, sections, footer))
    return advice.folder / PAGE


def _images(found: Inspection) -> str:
    warnings = found.warnings()
    text = paragraph(found.opening()) + bullets(found.facts())
    return text + (paragraph("To be seen to:") + bullets(warnings) if warnings else "")


def draw_curve(curve: LearningCurve, folder: Path) -> Plot:
    """The probe's errors by images, and where the curve leads up to four times as many."""
    more = [curve.images[-1], 2 * curve.images[-1], 4 * curve.images[-1]]
    rows: list[dict[str, Any]] = [
        {"images": count, "error": float(errors.mean()), "low": float(errors.min()), "high": float(errors.max())}
        for count, errors in zip(curve.images, curve.errors, strict=True)
    ]
    ahead = [(count, curve.at(count)) for count in more]
    with canvas(2.6) as (figure, axes):
        for count, errors in zip(curve.images, curve.errors, strict=True):
            axes.plot([count] * len(errors), 100 * errors, "o", color=BLUE, alpha=0.4, markersize=5)
        axes.plot(curve.images, 100 * curve.errors.mean(axis=1), color=BLUE)
        axes.plot(more, [100 * value.value for _, value in ahead], color=MUTED, linestyle="--")
        axes.fill_between(
            more,
            [100 * (value.low or 0.0) for _, value in ahead],
            [100 * (value.high or 0.0) for _, value in ahead],
            color=MUTED,
            alpha=0.2,
            linewidth=0,
        )
        axes.set_xscale("log")
        ticks = [*curve.images, *more[1:]]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("training images")
        axes.set_ylabel("wrong, %")
        rows += [
            {"images": count, "error": value.value, "low": value.low, "high": value.high} for count, value in ahead[1:]
        ]
        return finish(
            figure,
            folder,
            name="learning-curve",
            title="Errors by the number of training images",
            caption="A linear probe on the chosen network's features, judged on images it has not seen; each dot is "
            "one draw of images. Dashed: a power law through the means, with the 95 % interval over the draws.",
            alt=f"from {100 * rows[0]['error']:.0f} % wrong to {100 * ahead[0][1].value:.0f} % with all images",
            rows=rows,
        )


def _trainings(advice: Advice) -> str:
    rows = [
        [
            Cell(one.arm, one.error),
            Cell(str(one.epochs) if one.epochs else "solved for", number=True),
            Cell(str(1 + len(one.again)), number=True),
            Cell("failed" if one.mean is None else f"{100 * one.mean:.1f}", number=True),
            Cell("" if one.estimate is None else f"{100 * one.estimate:.1f}", number=True),
            Cell(duration(one.seconds), number=True),
        ]
        for one in advice.tried
    ]
    text = table(["training", "epochs", "seeds", "validation %", "estimate %", "time"], rows) + paragraph(
        "Trainings are compared by their estimates: the accuracy on the validation images, on average over the seeds, "
        "less what the same network's frozen features seem to gain by that choice of images, as their cross-validation "
        "on the training images tells, as far as both get the same images right. Of two that are alike the one that "
        "was trained from more seeds comes first: a standard error over seeds is taken off.",
        "note",
    )
    if advice.skipped:
        listed = bullets(f"{name}: about {duration(seconds)}" for name, seconds in advice.skipped.items())
        text += paragraph("There was no time for:", "note") + listed
    return text
