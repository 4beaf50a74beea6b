"""``headstart inspect``: look at a data set before anything is trained on it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from headstart.commands.arguments import folder_first

_HELP = """usage: headstart inspect PATH [key=value ...] [--out DIR]
       headstart inspect datamodule=csv datamodule.manifest=FILE [key=value ...] [--out DIR]
       headstart inspect RUN [RUN ...] [--out DIR]

Look at a data set before training: classes and splits, kinds and sizes of files, damaged ones, the same picture twice
(resized, encoded anew or mirrored), and what the network will see. Prints a summary and writes data.html.

PATH is a folder of images in class folders; the other choices are those of `headstart train`.

RUN is a finished run, or the folder of a cross-validation (-m datamodule.folds=5 'datamodule.fold=range(5)'): its data
are looked at, and the images whose label surprises models that were not trained on them, most likely labelled wrongly,
are listed in suspects.csv, a table to correct.

  --trust MODULE  a module of your own that the run may name; nothing else of a run is executed
  --out DIR   where to write the page (default: inspection/<name of the data> in paths.output_dir)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or {"-h", "--help"} & set(arguments):
        print(_HELP)
        return 0 if arguments else 2
    out, choices = _valued("--out", arguments, "a folder")
    trusted, choices = _valued("--trust", choices, "a module")
    if found := _runs(choices):
        from headstart.config.foreign import trust
        from headstart.inspection.page import inspect_runs

        trust([trusted or ""])
        inspect_runs(found, Path(out) if out else None)
        return 0
    from headstart.inspection.page import inspect

    inspect(folder_first(choices), Path(out) if out else None)
    return 0


def _valued(option: str, arguments: list[str], kind: str) -> tuple[str | None, list[str]]:
    """The value of an option that may be given once, and what is left."""
    from headstart.errors import ConfigError

    if option not in arguments:
        return None, arguments
    place = arguments.index(option)
    if place + 1 == len(arguments):
        raise ConfigError(f"{option} needs {kind}")
    rest = [*arguments[:place], *arguments[place + 2 :]]
    if not rest:
        raise ConfigError("give the folder of images, or datamodule=... as for training")
    return arguments[place + 1], rest


def _runs(choices: list[str]) -> list[Path]:
    """The run directories that are named, of a study's folder those in it; none: the choices are of a data set.

    Raises:
        ConfigError: there is something beside runs.
    """
    from headstart.errors import ConfigError
    from headstart.runs.directory import is_run

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
