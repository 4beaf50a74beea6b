"""What a tuned study tried before it compared (``tuning.json``), and what smaller budgets would have found."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.system.console import duration

if TYPE_CHECKING:
    from headstart.plots.style import Plot
    from headstart.study.page import Section

TUNING_FILE = "tuning.json"
_ARM = ("arm", "strategy", "chosen", "edges", "expected_best", "trials")


def expected_best(scores: Sequence[float], *, higher: bool = True) -> list[float]:
    """Expected best validation score of 1 to n random trials.

    With the n scores sorted from the worst to the best, the best of k that are drawn with replacement is the i-th with
    probability (i/n)^k - ((i-1)/n)^k (Dodge et al. 2019, Show Your Work, eq. 3).

    Args:
        scores: of the trials that ended well, ``(n,)``.
        higher: whether more is better.

    Returns: for k = 1 to n, ``(n,)``.
    """
    ordered = sorted(scores, reverse=not higher)
    n = len(ordered)
    return [
        sum(score * ((place / n) ** k - ((place - 1) / n) ** k) for place, score in enumerate(ordered, start=1))
        for k in range(1, n + 1)
    ]


def tuning_section(study: Path, plots: Path) -> "Section | None":
    """What each arm of a tuned study was given, for its page; None where the study is none.

    Args:
        study: the study's folder.
        plots: where the plot goes.
    """
    from headstart.study.page import Cell, Section, bullets, figures, paragraph, table

    told = read_tuning(study)
    if not told:
        return None
    rows, warnings = [], []
    for arm in told["arms"]:
        scores = [trial["score"] for trial in arm["trials"] if trial["score"] is not None]
        best = (max if told["higher_is_better"] else min)(scores) if scores else None
        seconds = sum(trial["seconds"] for trial in arm["trials"])
        chosen = ", ".join(f"{key}={value}" for key, value in arm["chosen"].items()) or "nothing to tune"
        cells = (str(len(arm["trials"])), duration(seconds), "" if best is None else f"{best:.4g}")
        rows.append([Cell(arm["arm"]), *(Cell(text, number=True) for text in cells), Cell(chosen)])
        warnings += [
            f"{arm['arm']}: {key}={arm['chosen'][key]} is at the edge of what was tried, so that a wider space may "
            f"find better (study.tuning.space.{arm['strategy']})."
            for key in arm["edges"]
        ]
    opening = (
        f"Before the comparison each arm got the same number of trials, scored by {told['metric']}; the best values "
        f"were then used for all seeds and splits. The trials are the study {told['study']}."
    )
    columns = ("arm", "trials", "time", told["metric"], "chosen")
    html = paragraph(opening) + table(columns, rows) + (bullets(warnings) if warnings else "")
    return Section("tuning", "Equal chances", html + figures([_budget_plot(told, plots)]))


def read_tuning(study: Path) -> dict[str, Any]:
    """``tuning.json`` of a study; empty where there is none, or a damaged one."""
    try:
        told = json.loads((study / TUNING_FILE).read_bytes())
        arms = [{key: arm[key] for key in _ARM} for arm in told["arms"]]
        for arm in arms:
            arm["trials"] = [{"score": _score(t["score"]), "seconds": float(t["seconds"])} for t in arm["trials"]]
            arm["expected_best"] = [float(value) for value in arm["expected_best"]]
            arm["chosen"] = {str(key): str(value) for key, value in arm["chosen"].items()}
            arm["edges"] = [key for key in arm["edges"] if key in arm["chosen"]]
        return {**{key: str(told[key]) for key in ("metric", "study")},
                "higher_is_better": bool(told["higher_is_better"]), "arms": arms}  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _score(value: Any) -> float | None:
    return None if value is None else float(value)


def _budget_plot(told: Mapping[str, Any], folder: Path) -> "Plot | None":
    from matplotlib.ticker import MaxNLocator

    from headstart.plots.style import DASHES, MARKERS, SERIES, canvas, finish, legend_above

    arms = [arm for arm in told["arms"] if len(arm["expected_best"]) > 1]
    if not arms:
        return None
    with canvas(3.0, legend=True) as (figure, axes):
        for place, arm in enumerate(arms):
            budgets = range(1, len(arm["expected_best"]) + 1)
            axes.plot(budgets, arm["expected_best"], label=arm["arm"], color=SERIES[place % len(SERIES)],
                      marker=MARKERS[place % len(MARKERS)], linestyle=DASHES[place % len(DASHES)])  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trials")
        axes.set_ylabel(f"expected best {told['metric']}")
        legend_above(figure, axes)
        ends = [f"{arm['arm']} from {arm['expected_best'][0]:.4g} to {arm['expected_best'][-1]:.4g}" for arm in arms]
        return finish(
            figure,
            folder,
            name="tuning",
            title="What more trials bring",
            caption="The best validation score to expect of so many random trials (Dodge et al. 2019). A curve that "
            "still rises at its end asks for more of them.",
            alt=f"Expected best {told['metric']} by number of trials: {'; '.join(ends)}.",
            rows=[
                {"arm": arm["arm"], "trials": k, "expected_best": value}
                for arm in arms
                for k, value in enumerate(arm["expected_best"], start=1)
            ],
        )
