"""``headstart features``: one vector an image, from a finished run's backbone or a pretrained one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from headstart.commands.arguments import add_batches, add_images, extractor_of
from headstart.config.foreign import add_trust, trust
from headstart.inference.inputs import find_images
from headstart.inference.rows import check_output
from headstart.system.names import legible


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the file is written."""
    parser = argparse.ArgumentParser(
        prog="headstart features", description="Write the pooled features of images, with the images' paths."
    )
    add_images(parser, "RUN or backbone=NAME [backbone.KEY=VALUE ...], then the images")
    parser.add_argument("--output", required=True, metavar="FILE", help=".npz (ids, features, source) or .parquet")
    add_batches(parser, batch_size=32)
    add_trust(parser)
    choices = parser.parse_args(argv)
    trust(choices.trust)

    from headstart.inference.features import FORMATS, write_features

    check_output(choices.output, FORMATS)
    extractor, rest = extractor_of(choices.given)
    images = find_images(rest, column=choices.column)
    count, skipped = write_features(
        extractor, images, Path(choices.output), batch_size=choices.batch_size, device=choices.device
    )
    for reason in skipped:
        print(f"skipped: {legible(reason)}", file=sys.stderr)
    size = extractor.backbone.feature_dim
    print(f"written to {choices.output}: {count} images, {size} numbers each, {len(skipped)} unreadable")
    return 0
