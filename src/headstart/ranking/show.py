"""A ranking for people: a table in the terminal, and a page with a plot and a CSV beside it."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from headstart.plots.style import BLUE, MUTED, Plot, canvas, finish
from headstart.ranking.rank import Ranked, Ranking
from headstart.study.page import Cell, Section, bullets, document, figures, glossary, paragraph, table, verdict_box
from headstart.system.atomic import atomic_write, write_rows
from headstart.system.console import count_text, plain_table
from headstart.transferability.intervals import Value
from headstart.transferability.scores import MEANINGS

PAGE, ROWS = "ranking.html", "ranking.csv"


def score_text(name: str, value: Value | None) -> str:
    """A score as people read it: accuracies in per cent."""
    if value is None:
        return "-"
    return f"{100 * value.value:.1f}" if MEANINGS[name].is_accuracy else f"{value.value:.3g}"


def interval_text(name: str, value: Value | None) -> str:
    """Its interval, or an empty text."""
    if value is None or value.low is None or value.high is None:
        return ""
    if MEANINGS[name].is_accuracy:
        return f"{100 * value.low:.1f} to {100 * value.high:.1f}"
    return f"{value.low:.3g} to {value.high:.3g}"


def ranking_table(ranking: Ranking) -> Table:
    """The table of the terminal: the score that decides, a few others, and what each network costs."""
    grid = plain_table(f"{escape(ranking.data)}: {ranking.images:,} training images, {ranking.classes} classes")
    shown = [ranking.by, *(name for name in ("knn", "logme") if name != ranking.by)]
    grid.add_column("backbone", style="bold", no_wrap=True)
    for name in shown:
        unit = " %" if MEANINGS[name].is_accuracy else ""
        grid.add_column(f"{MEANINGS[name].title}{unit}", justify="right", no_wrap=True)
        if name == ranking.by:
            grid.add_column("95 % interval", justify="right", no_wrap=True)
    for heading in ("best in", "mult-adds", "images/s"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for network in ranking.networks:
        cells = []
        for name in shown:
            cells.append(score_text(name, network.values.get(name)))
            if name == ranking.by:
                cells.append(interval_text(name, network.values.get(name)))
        grid.add_row(escape(network.name), *cells, *_costs(network))
    return grid


def _costs(network: Ranked) -> list[str]:
    cost = network.cost
    return [
        "-" if network.chance is None else f"{100 * network.chance:.0f} %",
        count_text(cost.multiply_adds),
        f"{cost.images_per_second:.0f}",
    ]


def verdict_text(ranking: Ranking) -> str:
    """What the ranking says, in a sentence or two."""
    best, by = ranking.best, MEANINGS[ranking.by]
    value = score_text(ranking.by, best.values[ranking.by]) + (" %" if by.is_accuracy else "")
    equal = [other.name for other in ranking.as_good()[1:]]
    first = f"{best.name} is the most promising backbone for {ranking.data} ({by.title} {value})."
    if len(ranking.networks) == 1:
        return f"{first} It is the only one whose weights are to be had here."
    if not equal:
        return f"{first} These images tell it from every other network."
    return f"{first} These images cannot tell it from {' and '.join(equal)}."


def write_ranking(ranking: Ranking) -> Path:
    """Write ``ranking.csv``, the plot and ``ranking.html`` into the ranking's folder; returns the page."""
    folder = ranking.folder
    write_rows(folder / ROWS, ranking.rows())
    plot = draw_ranking(ranking, folder)
    verdict = verdict_box(verdict_text(ranking), _points(ranking)) + figures([plot])
    sections = [
        Section("verdict", "Verdict", verdict),
        Section("scores", "Every score", scores_table(ranking)),
        Section("costs", "What they cost", costs_table(ranking)),
        *absent_section(ranking),
        Section("reading", "How to read this", reading(ranking)),
    ]
    lede = (
        f"{len(ranking.networks)} networks on {ranking.images:,} training images of {ranking.classes} classes. "
        "Nothing was trained, and no validation or test image was looked at."
    )
    footer = f"Every number is in {ROWS} beside this page; the plot is there as PNG, SVG and CSV."
    with atomic_write(folder / PAGE) as file:
        file.write(document(ranking.data, "Which backbone", lede, sections, footer))
    return folder / PAGE


def draw_ranking(ranking: Ranking, folder: Path) -> Plot:
    """The deciding score of each network with its interval, the best on top."""
    by, factor = MEANINGS[ranking.by], 100.0 if MEANINGS[ranking.by].is_accuracy else 1.0
    networks = list(reversed(ranking.networks))
    rows = []
    with canvas(0.9 + 0.35 * len(networks)) as (figure, axes):
        for place, network in enumerate(networks):
            value = network.values[ranking.by]
            low, high = (value.value if end is None else end for end in (value.low, value.high))
            axes.plot([factor * low, factor * high], [place, place], color=BLUE, linewidth=2, solid_capstyle="butt")
            axes.plot([factor * value.value], [place], "o", color=BLUE, markersize=7)
            axes.annotate(
                f"{count_text(network.cost.multiply_adds)} mult-adds",
                (factor * high, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
                fontsize=10,
            )
            rows.append({"backbone": network.name, "value": value.value, "low": value.low, "high": value.high})
        axes.set_yticks(range(len(networks)), [network.name for network in networks])
        axes.set_ylim(-0.6, len(networks) - 0.4)
        axes.margins(x=0.25)
        axes.set_xlabel(f"{by.title}{' accuracy, %' if by.is_accuracy else ''}")
        return finish(
            figure,
            folder,
            name="networks",
            title="The networks in order",
            caption=f"{by.says[0].upper()}{by.says[1:]}, with its 95 % interval over images.",
            alt=", ".join(f"{one.name} {score_text(ranking.by, one.values[ranking.by])}" for one in ranking.networks),
            rows=rows[::-1],
        )


def scores_table(ranking: Ranking) -> str:
    """A row a score, a column a network, with the intervals."""
    rows = [
        [
            Cell(f"{meaning.title}{' %' if meaning.is_accuracy else ''}"),
            *(
                Cell(
                    score_text(name, network.values.get(name)),
                    interval_text(name, network.values.get(name)),
                    number=True,
                )
                for network in ranking.networks
            ),
        ]
        for name, meaning in MEANINGS.items()
    ]
    columns = ["score", *(network.name for network in ranking.networks)]
    return table(columns, rows, "Of each, more is better; below it the 95 % interval over images.")


def costs_table(ranking: Ranking) -> str:
    """What each network takes here."""
    rows = []
    for network in ranking.networks:
        cost = network.cost
        memory = f"{cost.training_bytes / 2**20:,.0f} MiB" if cost.training_bytes else "not known"
        rows.append(
            [
                Cell(network.name),
                Cell(count_text(cost.parameters), number=True),
                Cell(count_text(cost.multiply_adds), number=True),
                Cell("x".join(map(str, cost.image_size)), number=True),
                Cell(f"{cost.images_per_second:.0f}", number=True),
                Cell(memory, f"batch of {cost.batch_size}", number=True),
                Cell(cost.licence or "not known"),
            ]
        )
    columns = ("backbone", "parameters", "multiply-adds", "pixels", "images/s here", "memory to fine-tune", "licence")
    return table(columns, rows, "Multiply-adds are of one image; images/s is of the pass, decoding included.")


def absent_section(ranking: Ranking) -> Sequence[Section]:
    """Networks that were not compared, with the reason."""
    if not ranking.absent:
        return ()
    listed = bullets(f"{candidate.name}: {candidate.absent}" for candidate in ranking.absent)
    return (Section("absent", "Not compared", listed, listed=False),)


def reading(ranking: Ranking) -> str:
    """What each score says."""
    text = (
        "Accuracies are of simple classifiers on frozen features, each image judged by one that has not seen it. The "
        "other scores order networks without training a classifier; they are comparable between networks on the same "
        "images only. A network that is best here is not bound to be best once it is fine-tuned."
    )
    return paragraph(text) + glossary({meaning.title: meaning.says for meaning in MEANINGS.values()})


def _points(ranking: Ranking) -> list[tuple[str, str]]:
    """What qualifies the verdict, each with its label."""
    points = []
    if ranking.duplicates:
        said = f"{ranking.duplicates} training images are the same as another one and were counted once."
        points.append(("Copies", said))
    equal = ranking.as_good()
    cheapest = min(equal, key=lambda one: one.cost.multiply_adds)
    if len(equal) > 1 and cheapest is not ranking.best:
        factor = ranking.best.cost.multiply_adds / cheapest.cost.multiply_adds
        said = f"{cheapest.name} needs {factor:.1f} times fewer multiply-adds for as much as can be told."
        points.append(("Cheaper", said))
    return points
