"""What a study's arms try before they are compared (``tuning.json``), and what smaller budgets would have found."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import ConfigError
from headstart.runs.reader import number
from headstart.runs.result import higher_is_better
from headstart.system.atomic import read_note, write_json
from headstart.system.console import duration
from headstart.system.locks import holding
from headstart.system.options import shown

if TYPE_CHECKING:
    from headstart.plots.style import Plot
    from headstart.study.page import Section

TUNING_FILE = "tuning.json"
_ARM = ("arm", "strategy", "chosen", "edges", "expected_best", "trials")

Point = tuple[tuple[str, str], ...]
"""Keys and the values that a trial gives them, as overrides have them."""


@dataclass(frozen=True)
class Trial:
    """One point of an arm.

    Attributes:
        point: the values.
        scores: the metric that chooses checkpoints, of each replicate that ended well.
        failed: whether one of them did not.
        runs: names of the run directories.
        seconds: that they took.
    """

    point: Point
    scores: tuple[float, ...]
    failed: bool
    runs: tuple[str, ...]
    seconds: float

    @property
    def score(self) -> float | None:
        """The mean; None where a replicate failed: a choice that fails for one seed is none to repeat."""
        return None if self.failed or not self.scores else sum(self.scores) / len(self.scores)


def space_points(
    space: Mapping[str, Any], strategy: str, *, given: Collection[str], absent: tuple[str, ...] = ()
) -> tuple[Point, ...]:
    """What the trials of an arm try: every combination of the space's values; one empty point where none concerns it.

    Args:
        space: values by dotted key, by strategy or ``default``.
        strategy: the arm's.
        given: keys that the command sets, which are not tuned.
        absent: beginnings of keys that the arm's runs have not.

    Raises:
        ConfigError: the space is none.
    """
    mine = space.get(strategy, space.get("default", {}))
    if not isinstance(mine, Mapping) or not all(isinstance(values, list) and values for values in mine.values()):
        raise ConfigError(
            f"study.tuning.space.{strategy}={mine} must name keys with lists of values: {{optimizer.lr: [1e-3]}}"
        )
    axes = [
        [(key, shown(value)) for value in values]
        for key, values in mine.items()
        if key not in given and not (absent and key.startswith(absent))
    ]
    return tuple(itertools.product(*axes))


def best_trial(trials: Sequence[Trial], metric: str) -> Trial | None:
    """The best of an arm; of equal ones the one that the space names first. None where none ended well."""
    sign = 1.0 if higher_is_better(metric) else -1.0
    scored = [(sign * trial.score, trial) for trial in trials if trial.score is not None]
    return max(scored, key=lambda item: item[0])[1] if scored else None


def edges(points: Sequence[Point], chosen: Point) -> list[str]:
    """Keys whose chosen value is the smallest or the largest number that the trials of an arm tried."""
    found = []
    for key, value in chosen:
        tried = {dict(point)[key] for point in points}
        numbers = [known for text in tried if (known := number(text)) is not None]
        if 1 < len(tried) == len(numbers) and number(value) in (min(numbers), max(numbers)):
            found.append(key)
    return found


def tuning_record(arms: Sequence[tuple[str, str, Sequence[Trial]]], metric: str, study: str) -> dict[str, Any]:
    """``tuning.json``: what was tried for each arm, what was chosen, what smaller budgets would have found.

    Args:
        arms: of each the label, the strategy and the trials; none where there was nothing to tune.
        metric: that chose.
        study: of the trials.
    """
    higher = higher_is_better(metric)
    told = []
    for label, strategy, trials in arms:
        scores = [trial.score for trial in trials if trial.score is not None]
        best = best_trial(trials, metric)
        told.append(
            {
                "arm": label,
                "strategy": strategy,
                "chosen": dict(best.point) if best else {},
                "edges": edges([trial.point for trial in trials], best.point) if best else [],
                "expected_best": expected_best(scores, higher=higher),
                "trials": [
                    {
                        "values": dict(trial.point),
                        "score": trial.score,
                        "seconds": round(trial.seconds, 3),
                        "runs": list(trial.runs),
                    }
                    for trial in trials
                ],
            }
        )
    return {"metric": metric, "higher_is_better": higher, "study": study, "arms": told}


def add_tuning(study: Path, told: Mapping[str, Any]) -> None:
    """Write ``tuning.json``; arms that an earlier command of the study tuned by the same metric stay in it.

    Args:
        study: the study's folder.
        told: of :func:`tuning_record`.
    """
    path, arms = study / TUNING_FILE, {arm["arm"]: arm for arm in told["arms"]}
    with holding(study / f".{TUNING_FILE}.lock"):
        earlier = read_note(path)
        if read_tuning(study) and earlier["metric"] == told["metric"]:
            arms = {arm["arm"]: arm for arm in earlier["arms"]} | arms
        write_json(path, {**told, "arms": list(arms.values())})


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
    numbers = {len(arm["trials"]) for arm in told["arms"]} - {0}
    chances = "the same number of" if len(numbers) < 2 else "another number of (see the table)"
    opening = (
        f"Before the comparison each arm got {chances} trials, scored by {told['metric']}, and went into it "
        f"with the best values. The trials are the study {told['study']}."
    )
    columns = ("arm", "trials", "time", told["metric"], "chosen")
    html = paragraph(opening) + table(columns, rows) + (bullets(warnings) if warnings else "")
    return Section("tuning", "Equal chances", html + figures([_budget_plot(told, plots)]))


def read_tuning(study: Path) -> dict[str, Any]:
    """``tuning.json`` of a study; empty where there is none, or a damaged one."""
    try:
        told = read_note(study / TUNING_FILE)
        arms = [{key: arm[key] for key in _ARM} for arm in told["arms"]]
        for arm in arms:
            arm["trials"] = [{"score": _score(t["score"]), "seconds": float(t["seconds"])} for t in arm["trials"]]
            arm["expected_best"] = [float(value) for value in arm["expected_best"]]
            arm["chosen"] = {str(key): str(value) for key, value in arm["chosen"].items()}
            arm["edges"] = [key for key in arm["edges"] if key in arm["chosen"]]
        return {**{key: str(told[key]) for key in ("metric", "study")},
                "higher_is_better": bool(told["higher_is_better"]), "arms": arms}  # fmt: skip
    except (ValueError, LookupError, TypeError, AttributeError):
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
