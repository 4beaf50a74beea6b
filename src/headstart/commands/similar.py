"""``headstart similar``: the images nearest to an image, as a finished run or a pretrained backbone sees them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from headstart.commands.arguments import add_batches, add_images, at_least_one, check_output_place, extractor_of
from headstart.config.foreign import add_trust, trust
from headstart.inference.inputs import find_images
from headstart.system.console import show
from headstart.system.names import legible


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when neighbours were found."""
    parser = argparse.ArgumentParser(
        prog="headstart similar", description="Find the images nearest to an image, by the cosine of their features."
    )
    add_images(parser, "RUN or backbone=NAME [backbone.KEY=VALUE ...], then the images to look for")
    parser.add_argument(
        "--among",
        required=True,
        nargs="+",
        metavar="IMAGES",
        help="what to look through: folders, files, patterns, tables, or an .npz of `headstart features`",
    )
    parser.add_argument("--count", type=at_least_one, default=10, help="neighbours of each image (default: 10)")
    parser.add_argument(
        "--output", default="similar.html", metavar="FILE.html", help="the page (default: similar.html)"
    )
    add_batches(parser, batch_size=32)
    add_trust(parser)
    choices = parser.parse_args(argv)
    trust(choices.trust)
    check_output_place(choices.output)
    stored = [path for path in choices.among if path.endswith(".npz")]
    if stored and len(choices.among) > 1:
        parser.error(f"--among {stored[0]} stands alone; give only the file, or only images")

    from headstart.inference.features import read_features
    from headstart.inference.nearest import nearest, write_page

    extractor, rest = extractor_of(choices.given, precision=choices.precision)
    images = list(find_images(rest, column=choices.column))
    among = read_features(Path(stored[0])) if stored else find_images(choices.among, column=choices.column)
    found, skipped = nearest(
        extractor, images, among, count=choices.count, batch_size=choices.batch_size, device=choices.device
    )
    for reason in skipped:
        print(f"skipped: {legible(reason)}", file=sys.stderr)
    for image, near in zip(images, found, strict=True):
        show(image)
        for one in near:
            show(f"  {one.cosine:.4f}  {one.path}")
    write_page(Path(choices.output), extractor.source, images, found)
    show(f"written: {choices.output}")
    return 0
