"""``headstart evaluate``: a finished run's model on new labelled images."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from headstart.commands.arguments import add_batches, check_output_place, folder_first
from headstart.config.foreign import add_trust, trust
from headstart.errors import ConfigError
from headstart.runs.reader import find_finished


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the report is written."""
    parser = argparse.ArgumentParser(
        prog="headstart evaluate",
        description="Score a finished run's model on new labelled images, with intervals over images; the run stays "
        "as it is.",
    )
    parser.add_argument("run", help="run directory (or a folder that holds one finished run)")
    parser.add_argument(
        "choices",
        nargs="+",
        metavar="PATH or datamodule=...",
        help="a folder of images in class folders, or chosen as for training",
    )
    parser.add_argument("--config-dir", metavar="PATH", help="a folder of YAML files of your own")
    parser.add_argument("--output", metavar="DIR", help="for the report (default: evaluations/<run>-<datamodule>)")
    parser.add_argument(
        "--split",
        default="auto",
        choices=("auto", "all", "train", "val", "test"),
        help="of the images (default: test where the data have such a split of their own, else all)",
    )
    parser.add_argument(
        "--with",
        dest="others",
        action="append",
        default=[],
        metavar="RUN",
        help="another run to compare with on the same images; may be given several times",
    )
    add_batches(parser, batch_size=64)
    add_trust(parser)
    options = parser.parse_args(argv)
    trust(options.trust)
    choices = folder_first(options.choices)
    keys = [choice.lstrip("+").partition("=")[0] for choice in choices]
    if wrong := [key for key in keys if key.partition(".")[0] != "datamodule"]:
        raise ConfigError(
            f"{wrong[0]} is of no use here: the run has chosen; only datamodule=... and its keys are left"
        )
    directory, *others = (find_finished(run) for run in (options.run, *options.others))

    from headstart.config import compose, resolve_run

    resolved = resolve_run(compose([*choices, "backbone.weights=none"], config_dir=options.config_dir))
    name = Path(str(resolved.settings.datamodule.arguments.get("root") or resolved.choices["datamodule"])).name
    folder = Path(options.output or Path("evaluations") / f"{directory.name}-{name}")
    check_output_place(folder, folder=True)

    from headstart.execution.load import load
    from headstart.inference.evaluate import evaluate, show_evaluation

    found, compared = evaluate(
        load(directory),
        resolved.settings.datamodule,
        folder,
        others=[load(other) for other in others],
        split=options.split,
        batch_size=options.batch_size,
        device=options.device,
    )
    show_evaluation(found, compared, folder)
    return 0
