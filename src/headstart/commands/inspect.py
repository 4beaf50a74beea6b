"""``headstart inspect``: look at a data set before anything is trained on it."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

_HELP = """usage: headstart inspect PATH [key=value ...] [--out DIR]
       headstart inspect datamodule=csv datamodule.manifest=FILE [key=value ...] [--out DIR]

Look at a data set before training: classes and splits, kinds and sizes of files, damaged ones, the same picture twice
(resized, encoded anew or mirrored), and what the network will see. Prints a summary and writes data.html.

PATH is a folder of images in class folders; the other choices are those of `headstart train`.

  --out DIR   where to write the page (default: inspection/<name of the data> in paths.output_dir)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or {"-h", "--help"} & set(arguments):
        print(_HELP)
        return 0 if arguments else 2
    out, choices = _out(arguments)
    if "=" not in choices[0] or Path(choices[0]).is_dir():
        # In quotes, so that any character may be in a path; before a quote, and only there, a backslash is doubled.
        quoted = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), choices[0])
        choices[:1] = ["datamodule=folder", f"datamodule.root='{quoted}'"]
    from headstart.inspection.page import inspect

    inspect(choices, out)
    return 0


def _out(arguments: list[str]) -> tuple[Path | None, list[str]]:
    from headstart.errors import ConfigError

    if "--out" not in arguments:
        return None, arguments
    place = arguments.index("--out")
    if place + 1 == len(arguments):
        raise ConfigError("--out needs a folder")
    rest = [*arguments[:place], *arguments[place + 2 :]]
    if not rest:
        raise ConfigError("give the folder of images, or datamodule=... as for training")
    return Path(arguments[place + 1]), rest
