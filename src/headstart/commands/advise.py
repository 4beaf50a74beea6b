"""``headstart advise``: which backbone and which training for a folder of images, within a given time."""

import argparse
import time
from collections.abc import Sequence

from headstart.commands.arguments import folder_first, own_choices
from headstart.system.console import duration, show


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    began = time.monotonic()  # the imports below count
    parser = argparse.ArgumentParser(
        prog="headstart advise",
        description="Try the networks at hand on your images within a budget of time, and recommend one with its "
        "training, expected score and command.",
        epilog="Example: headstart advise PATH budget=10min",
    )
    parser.add_argument(
        "choices",
        nargs="*",
        metavar="PATH or KEY=VALUE",
        help="a folder of images in class folders, or choices as for a training; budget=10min: time to use (a number "
        "alone is minutes); backbones=A,B: only these networks",
    )
    own, overrides = own_choices(folder_first(parser.parse_args(argv).choices), ("backbones", "budget"))
    from headstart.ranking.advice_page import write_advice
    from headstart.ranking.advice_words import points, recommendation
    from headstart.ranking.advise import BUDGET, advise
    from headstart.ranking.show import ranking_table

    backbones = own["backbones"].strip("[]").split(",") if "backbones" in own else None
    advice = advise(overrides, budget=own.get("budget", BUDGET), backbones=backbones, say=show, began=began)
    show("")
    show(ranking_table(advice.ranking))
    show(recommendation(advice))
    for label, words in points(advice):
        show(f"  {label}: {words}")
    show("")
    show(advice.command)
    show(f"{write_advice(advice)} ({duration(advice.spent_s)} of {duration(advice.budget_s)} used)")
    return 0
