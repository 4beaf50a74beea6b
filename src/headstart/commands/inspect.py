"""``headstart inspect``: look at a data set before anything is trained on it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from headstart.commands.arguments import folder_first
from headstart.config.foreign import add_trust, trust
from headstart.errors import ConfigError
from headstart.runs.directory import is_run


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="headstart inspect",
        description="Look at a data set before training: classes and splits, kinds and sizes of files, damaged ones, "
        "the same picture twice (resized, encoded anew or mirrored), and what the network will see. Prints a summary "
        "and writes data.html.",
        epilog="Of finished runs, suspects.csv also lists the images whose label surprises models that were not "
        "trained on them, the most surprising first: labelled wrongly, or just hard, so look at each.",
    )
    parser.add_argument(
        "choices",
        nargs="+",
        metavar="PATH, RUN or KEY=VALUE",
        help="a folder of images in class folders, or datamodule=csv datamodule.manifest=FILE, and other choices as "
        "for a training; or finished runs, or the folder of a cross-validation (-m datamodule.folds=5 "
        "'datamodule.fold=range(5)')",
    )
    parser.add_argument("--out", metavar="DIR", help="for the page (default: inspection/<data> in paths.output_dir)")
    add_trust(parser)
    given = parser.parse_intermixed_args(argv)
    out = Path(given.out) if given.out else None
    from headstart.inspection.page import inspect, inspect_runs

    if found := _runs(given.choices):
        trust(given.trust)
        inspect_runs(found, out)
    else:
        inspect(folder_first(given.choices), out)
    return 0


def _runs(choices: list[str]) -> list[Path]:
    """The run directories that are named, of a study's folder those in it; none: the choices are of a data set.

    Raises:
        ConfigError: there is something beside runs.
    """
    found: list[Path] = []
    for choice in choices:
        folder = Path(choice)
        inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        runs = [path for path in [folder, *inside] if is_run(path)]
        if not runs and found:
            raise ConfigError(f"{choice} is no finished run; after runs there can be further runs only, and --out")
        if not runs:
            return []
        found += runs
    return found
