"""``headstart predict``: classify new images with a finished run, preprocessed exactly as in that run."""

import argparse
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from headstart.config.foreign import add_trust, trust
from headstart.execution.predict import Prediction, Unreadable, find_images, write_csv
from headstart.runs.reader import find_finished
from headstart.system.atomic import atomic_write
from headstart.system.names import legible


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when at least one image was classified, else 1."""
    parser = argparse.ArgumentParser(
        prog="headstart predict", description="Classify images with a finished run, preprocessed as in that run."
    )
    parser.add_argument("run", help="run directory (or a folder that holds one finished run)")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--output", metavar="FILE.csv", help="write the CSV there (default: standard output)")
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time (default: 32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add_trust(parser)
    choices = parser.parse_args(argv)
    trust(choices.trust)
    if choices.batch_size < 1:
        parser.error(f"--batch-size={choices.batch_size} must be at least 1")
    if choices.output and Path(choices.output).is_dir():
        parser.error(f"--output={choices.output} is a folder; give a file in it, such as predictions.csv")
    paths = find_images(choices.images)
    directory = find_finished(choices.run)
    return _predict_to_csv(
        directory, paths, output=choices.output, batch_size=choices.batch_size, device=choices.device
    )


def _predict_to_csv(directory: Path, paths: list[str], *, output: str | None, batch_size: int, device: str) -> int:
    from headstart.execution.load import find_device, load

    find_device(device)
    model = load(directory)
    started = time.perf_counter()
    labels: Counter[str] = Counter()
    unreadable: list[Unreadable] = []

    def readable() -> Iterator[Prediction]:
        for outcome in model.stream(paths, batch_size=batch_size, device=device):
            if isinstance(outcome, Unreadable):
                unreadable.append(outcome)
            else:
                labels[outcome.label] += 1
                yield outcome

    with _output(output) as file:
        write_csv(file, model.classes, readable(), task=model.task.name)
    for item in unreadable:
        print(f"skipped: {legible(item.reason)}", file=sys.stderr)
    seconds = time.perf_counter() - started
    rate = f" in {seconds:.1f} s ({labels.total() / seconds:.0f} a second)" if labels else ""
    done = "classified" if model.task.one_class else "predicted"
    print(f"{labels.total()} images {done}{rate}, {len(unreadable)} unreadable", file=sys.stderr)
    if model.task.one_class:
        _show_counts(labels)
    if output:
        print(f"written to {output}", file=sys.stderr)
    return 0 if labels else 1


@contextmanager
def _output(path: str | None) -> Iterator[IO[str]]:
    """Where the lines go. A path that is not UTF-8 is written with its own bytes."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")
        yield sys.stdout
        sys.stdout.flush()
    else:
        with atomic_write(path, "wb") as raw:
            file = io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline="", write_through=True)
            yield file
            file.detach()


def _show_counts(labels: Counter[str]) -> None:
    most = [(legible(name), count) for name, count in labels.most_common(20)]
    width = max((len(name) for name, _ in most), default=0)
    for name, count in most:
        print(f"  {name:<{width}}  {count:>6}  {count / labels.total():6.1%}", file=sys.stderr)
    if len(labels) > 20:
        print(f"  and {len(labels) - 20} more classes", file=sys.stderr)
