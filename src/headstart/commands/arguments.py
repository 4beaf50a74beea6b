"""Arguments that several commands have."""

import argparse


def add_batches(parser: argparse.ArgumentParser, *, batch_size: int) -> None:
    """How images go through a network: ``--batch-size`` and ``--device``."""
    parser.add_argument(
        "--batch-size", type=_at_least_one, default=batch_size, help=f"images at a time (default: {batch_size})"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number
