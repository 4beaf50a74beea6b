"""``headstart predict``: classify new images with a finished run, preprocessed exactly as in that run."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from headstart.commands.arguments import add_batches, check_output_place
from headstart.config.foreign import add_trust, trust
from headstart.inference.doubt import doubting
from headstart.inference.inputs import find_images
from headstart.inference.masks import WithMasks
from headstart.inference.predict import Predictor, predict_to_file, predict_to_stream
from headstart.inference.rows import check_output
from headstart.runs.directory import is_run
from headstart.runs.reader import find_finished
from headstart.runs.result import RESULT_FILE
from headstart.system.digests import digest
from headstart.system.names import legible


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when at least one image was classified, else 1."""
    parser = _parser()
    choices = parser.parse_args(argv)
    trust(choices.trust)
    if choices.output and Path(choices.output).is_dir():
        parser.error(f"--output={choices.output} is a folder; give a file in it, such as predictions.csv")
    if choices.output:
        check_output(choices.output)
        check_output_place(choices.output)
    for option, place in (("--masks", choices.masks), ("--explain", choices.explain)):
        if place:
            check_output_place(place, folder=True, option=option)
    if choices.max_error is not None and not 0 <= choices.max_error < 1:
        parser.error(f"--max-error={choices.max_error:g} is no share; give one such as 0.05")
    further = list(takewhile(lambda given: is_run(Path(given)), choices.images))
    if not choices.images[len(further) :]:
        parser.error(f"{further[-1]} is a run; give images after it")
    if choices.max_error is not None and (further or choices.tta != "none"):
        parser.error("--max-error is kept on what one run said of its validation images; give one run, and no --tta")
    images = find_images(choices.images[len(further) :], column=choices.column)
    runs = [find_finished(run) for run in (choices.run, *further)]

    from headstart.execution.load import find_device, load
    from headstart.inference.ensemble import Ensemble

    find_device(choices.device)
    ensemble = Ensemble([load(run) for run in runs], flip=choices.tta == "flip")
    model: Predictor = ensemble
    if choices.explain:
        from headstart.inference.explain import Explained

        model = Explained(ensemble, Path(choices.explain))
    if choices.max_error is not None:
        model = _doubting(model, runs[0], choices.max_error)
    if choices.masks:
        model = WithMasks(model, Path(choices.masks))
    started = time.perf_counter()
    if choices.output:
        about: dict[str, Any] = {"runs": [digest((run / RESULT_FILE).read_bytes()) for run in runs], "tta": choices.tta}
        about["max_error"] = choices.max_error
        # What is written beside the table for each image: a start without it has left some images out.
        beside = {"masks": choices.masks, "explain": choices.explain}
        about |= {name: str(Path(place).absolute()) for name, place in beside.items() if place}
        batches = {"batch_size": choices.batch_size, "device": choices.device}
        tally = predict_to_file(model, images, Path(choices.output), about=about, **batches)
    else:
        tally = predict_to_stream(model, images, batch_size=choices.batch_size, device=choices.device)
    seconds = time.perf_counter() - started
    new = tally.images + tally.unreadable - tally.resumed
    rate = f" in {seconds:.1f} s ({new / seconds:.0f} a second)" if new and tally.images else ""
    done = "classified" if model.task.one_class else "predicted"
    print(f"{tally.images} images {done}{rate}, {tally.unreadable} unreadable", file=sys.stderr)
    if choices.max_error is not None:
        print(f"{tally.images - tally.labels.total()} of them got no class: not sure enough", file=sys.stderr)
    _show_counts(tally.labels)
    for place in filter(None, (choices.output, choices.masks, choices.explain) if tally.images else ()):
        print(f"written to {place}", file=sys.stderr)
    return 0 if tally.images else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headstart predict", description="Classify images with a finished run, preprocessed as in that run."
    )
    parser.add_argument(
        "run",
        help="run directory (or a folder that holds one finished run); of several, one after the other, the mean of "
        "the probabilities counts",
    )
    parser.add_argument(
        "images",
        nargs="+",
        help="image files, folders of them, tar files, patterns ('photos/**/*.jpg'), tables of paths (.csv, .tsv), or "
        "- for one path a line on standard input",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=".csv, .jsonl or .parquet (default: CSV on standard output); if the command is killed, the same command "
        "goes on with it",
    )
    parser.add_argument(
        "--masks", metavar="FOLDER", help="of a run of task=segmentation: write each predicted mask there as a PNG"
    )
    parser.add_argument("--column", default="path", help="of the paths in tables (default: path)")
    parser.add_argument(
        "--tta",
        choices=("none", "flip"),
        default="none",
        help="test-time augmentation; flip: the mean over each image and its mirror image (default: none)",
    )
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="also a picture of each image there, with what speaks for its class (extra explain); takes a few forward "
        "passes more",
    )
    parser.add_argument(
        "--max-error",
        type=float,
        metavar="SHARE",
        help="give no class where the model is not sure: at most this share of the images with a class was wrong "
        "on the run's validation images (0.05: one in twenty); of one run, without --tta",
    )
    add_batches(parser, batch_size=32)
    add_trust(parser)
    return parser


def _doubting(model: Predictor, run: Path, max_error: float) -> Predictor:
    found = doubting(model, run, max_error)
    limit = found.limit
    print(
        f"a class is given from a probability of {limit.least:.4f} on: on validation to {limit.answered:.1%} of the "
        f"images, of which {limit.error:.1%} were wrong",
        file=sys.stderr,
    )
    return found


def _show_counts(labels: Counter[str]) -> None:
    most = [(legible(name), count) for name, count in labels.most_common(20)]
    width = max((len(name) for name, _ in most), default=0)
    for name, count in most:
        print(f"  {name:<{width}}  {count:>6}  {count / labels.total():6.1%}", file=sys.stderr)
    if len(labels) > 20:
        print(f"  and {len(labels) - 20} more classes", file=sys.stderr)
