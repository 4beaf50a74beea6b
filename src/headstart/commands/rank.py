"""``headstart rank``: which of the networks at hand suits a data set, before anything is trained."""

import argparse
from collections.abc import Sequence

from headstart.commands.arguments import folder_first, own_choices
from headstart.system.console import show


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="headstart rank",
        description="Score the networks whose weights are to be had here on a data set's training images.",
        epilog="Example: headstart rank PATH backbones=resnet18,efficientnet_lite0",
    )
    parser.add_argument(
        "choices",
        nargs="*",
        metavar="PATH or KEY=VALUE",
        help="a folder of images in class folders, or choices as for a training; backbones=A,B: only these (NAME, or "
        "NAME:WEIGHTS); by=SCORE: the score that orders them",
    )
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help="your own YAML files, searched first")
    given = parser.parse_args(argv)
    own, overrides = own_choices(folder_first(given.choices), ("backbones", "by"))
    from headstart.ranking.rank import BY, rank
    from headstart.ranking.show import ranking_table, verdict_text, write_ranking

    backbones = own["backbones"].strip("[]").split(",") if "backbones" in own else None
    ranking = rank(overrides, backbones=backbones, by=own.get("by", BY), config_dir=given.config_dir, say=show)
    show("")
    show(ranking_table(ranking))
    show(verdict_text(ranking))
    for candidate in ranking.absent:
        show(f"not compared: {candidate.name} ({candidate.absent.partition(';')[0]})")
    show(f"{write_ranking(ranking)}")
    return 0
