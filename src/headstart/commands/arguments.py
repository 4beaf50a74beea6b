"""Arguments that several commands have."""

import argparse
import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import ConfigError
from headstart.runs.reader import find_finished
from headstart.system.folders import nearest_existing
from headstart.system.names import override

if TYPE_CHECKING:
    from headstart.inference.features import Extractor


def at_least_one(text: str) -> int:
    """A count, as the type of an argument."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def add_batches(parser: argparse.ArgumentParser, *, batch_size: int) -> None:
    """How images go through a network: ``--batch-size`` and ``--device``."""
    parser.add_argument(
        "--batch-size", type=at_least_one, default=batch_size, help=f"images at a time (default: {batch_size})"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")


def own_choices(choices: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The command's own ``KEY=VALUE`` pairs, and the others as they are.

    Args:
        choices: as given.
        names: the command's own keys.

    Raises:
        ConfigError: something is no ``KEY=VALUE``.
    """
    own: dict[str, str] = {}
    others: list[str] = []
    for choice in choices:
        key, equals, value = choice.partition("=")
        if not equals and not choice.startswith("~"):
            raise ConfigError(f"'{choice}' is no choice; write KEY=VALUE, such as datamodule=digits")
        if key in names:
            own[key] = value
        else:
            others.append(choice)
    return own, others


def folder_first(choices: list[str]) -> list[str]:
    """The same, where a folder of images that comes first is the choice of its data set."""
    first = choices[0] if choices else "="
    if Path(first).is_dir() or ("=" not in first and not Path(first).name.startswith("~")):
        return ["datamodule=folder", override("datamodule.root", first), *choices[1:]]
    return choices


def check_output_place(output: str | Path, *, folder: bool = False, option: str = "--output") -> None:
    """Hold before the work that a file, or a folder, can be written where ``option`` says.

    Raises:
        ConfigError: there is something else, or it may not be written to.
    """
    path = Path(output)
    if path.exists() and path.is_dir() != folder:
        words = "a file; give a folder" if folder else "a folder; give a file in it"
        raise ConfigError(f"{option}={output} is {words}")
    there = nearest_existing(path)
    if there != path and not there.is_dir():
        raise ConfigError(f"{option}={output}: {there} is no folder; give another place")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{option}={output}: {there} cannot be written to; give another place")


def add_images(parser: argparse.ArgumentParser, what: str) -> None:
    """What comes before the images, and the images as ``headstart predict`` takes them."""
    parser.add_argument("given", nargs="+", metavar="RUN|backbone=NAME IMAGES", help=what)
    parser.add_argument("--column", default="path", help="of the paths in tables (default: path)")
    parser.add_argument(
        "--precision",
        choices=("32-true", "run"),
        default="32-true",
        help="run: as the run computes (bf16-mixed where that is fast), so that what it has stored of these images is "
        "read instead of made again; 32-true reads what was stored in 32 bits (default: 32-true)",
    )


def extractor_of(given: Sequence[str], *, precision: str) -> "tuple[Extractor, Sequence[str]]":
    """The backbone that the first arguments name, ready, and the arguments after those.

    Args:
        given: on the command line.
        precision: of its features, ``32-true`` or ``run``.

    Raises:
        ConfigError: there are no images after it.
    """
    choices = list(takewhile(lambda text: text.partition("=")[0].partition(".")[0] == "backbone", given))
    rest = given[len(choices) or 1 :]
    if not rest:
        raise ConfigError(f"give images after {given[-1]}")
    run = None if choices else find_finished(given[0])

    from headstart.execution.load import load
    from headstart.inference.features import Extractor

    if run:
        return Extractor.of_run(load(run), precision=precision), rest
    return Extractor.of_weights(choices, precision=precision), rest
