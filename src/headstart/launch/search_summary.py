"""What a search found: a line for each arm, and the command that trains the best again."""

import shlex
from typing import Any

from rich.text import Text

from headstart.errors import RunError
from headstart.launch.search import TRIALS_FILE, Search
from headstart.system.console import duration, number, plain_table, show

_MOST_OF_A_FRONT = 5


def show_search(search: Search) -> None:
    """A table of the arms, the best trials of each, and where everything is."""
    # Equal trials are no front.
    most = 1 if len(search.settings.objectives) == 1 else _MOST_OF_A_FRONT
    numbers = ("trials", "pruned", "failed", "time", *search.settings.objectives)
    table = plain_table("", "arm", *map(number, numbers), "best choices")
    for arm in search.arms:
        states = [trial.state.name for trial in arm.trials]
        seconds = sum(trial.user_attrs["seconds"] for trial in arm.trials)
        counts = [str(len(states)), *(str(states.count(state)) for state in ("PRUNED", "FAIL"))]
        for place, trial in enumerate(arm.best[:most] or [None]):
            first = [arm.name or "all", *counts, duration(seconds)] if place == 0 else [""] * 5
            values = [""] * len(search.settings.objectives) if trial is None else [f"{v:.4g}" for v in trial.values]
            choices = "" if trial is None else " ".join(best_overrides(search, trial))
            table.add_row(*map(Text, (*first, *values, choices)))
    show(table)
    for arm in search.arms:
        if arm.best:
            overrides = search.space.overrides(arm.name, arm.best[0].params)
            overrides = [override for override in overrides if not override.startswith("study.")]
            show(f"Train the best again: headstart train {' '.join(map(shlex.quote, overrides))}")
    show(f"Every trial is a row of {search.folder / TRIALS_FILE}")


def raise_unless_found(search: Search) -> None:
    """A failed trial is an answer, an arm without a finished one is not.

    Raises:
        RunError: names the arms.
    """
    empty = [arm.name or "the search" for arm in search.arms if not arm.best]
    if empty:
        raise RunError(f"no trial of {', '.join(empty)} is complete; {search.folder / TRIALS_FILE} says why")


def best_overrides(search: Search, trial: Any) -> list[str]:
    """What the search chose, without what was given."""
    return search.space.overrides("", trial.params)[len(search.space.fixed) :]
