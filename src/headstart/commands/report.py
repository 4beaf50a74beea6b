"""``headstart report``: compare the runs of a study."""

import argparse
import json
from collections.abc import Sequence

from headstart.config.foreign import add_trust, trust
from headstart.study.report import print_report, write_report


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="headstart report", description="Compare the runs of a study and write report.html."
    )
    parser.add_argument("directory", help="folder of the study, such as outputs/<study>")
    parser.add_argument("--out", help="where to write (default: the folder itself)")
    parser.add_argument("--contrast", help="axis to compare along (default: strategy, else the first that varies)")
    parser.add_argument("--reference", help="its value that the others are compared with (default: the plainest)")
    parser.add_argument("--primary", help="its value whose comparison is the one question, declared beforehand")
    parser.add_argument("--metric", help="the metric that decides (default: the test metric, else validation)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what is printed (default: text)")
    add_trust(parser)
    options = vars(parser.parse_args(argv))
    trust(options.pop("trust"))
    shown = options.pop("format")
    report = write_report(options.pop("directory"), **options)
    if shown == "json":
        print(json.dumps(report.summary(), indent=2, ensure_ascii=False))
    else:
        print_report(report)
    return 0
