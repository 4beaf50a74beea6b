"""``headstart features``: one vector an image, from a finished run's backbone or a pretrained one."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from headstart.commands.arguments import add_batches, add_images, check_output_place, extractor_of
from headstart.config.foreign import add_trust, trust
from headstart.inference.inputs import find_images
from headstart.inference.rows import check_output


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the file is written."""
    parser = argparse.ArgumentParser(
        prog="headstart features", description="Write the pooled features of images, with the images' paths."
    )
    add_images(parser, "RUN or backbone=NAME [backbone.KEY=VALUE ...], then the images")
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help=".npz (ids, features, source) or .parquet; if the command is killed, the same command goes on with it",
    )
    add_batches(parser, batch_size=32)
    add_trust(parser)
    choices = parser.parse_args(argv)
    trust(choices.trust)

    from headstart.inference.features import FORMATS, write_features

    check_output(choices.output, FORMATS)
    check_output_place(choices.output)
    extractor, rest = extractor_of(choices.given, precision=choices.precision)
    images = find_images(rest, column=choices.column)
    written = write_features(
        extractor, images, Path(choices.output), batch_size=choices.batch_size, device=choices.device
    )
    size = extractor.backbone.feature_dim
    print(f"written to {choices.output}: {written.images} images, {size} numbers each, {written.unreadable} unreadable")
    if written.stored:
        print(f"{written.stored} of them were read from stored activations (headstart cache ls)")
    return 0
