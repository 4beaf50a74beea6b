"""``headstart demo``: a finished run as a page on this machine."""

import argparse
from collections.abc import Sequence

from headstart.config.foreign import add_trust, trust
from headstart.runs.reader import find_finished
from headstart.system.extras import require_extra


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns when it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="headstart demo",
        description="Show a finished run as a page on this machine: drop an image, see classes and explanation.",
    )
    parser.add_argument("run", help="run directory (or a folder that holds one finished run)")
    parser.add_argument("--port", type=int, default=7860, help="of http://127.0.0.1 (default: 7860)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add_trust(parser)
    choices = parser.parse_args(argv)
    trust(choices.trust)
    directory = find_finished(choices.run)
    require_extra("headstart demo", "demo")

    from headstart.execution.load import load
    from headstart.inference.demo import serve

    serve(load(directory), port=choices.port, device=choices.device)
    return 0
