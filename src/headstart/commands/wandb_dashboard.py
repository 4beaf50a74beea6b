"""``scripts/wandb_dashboard.py``: a workspace and a report of Weights & Biases for a study."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from headstart.errors import HeadstartError
from headstart.study.dashboard import SPECIFICATION, look_at, read_specification, save, specification, unknown_keys
from headstart.system.atomic import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """``wandb_dashboard DIR``: write the specification, and with ``--save`` save it. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="wandb_dashboard",
        description="Build a workspace and a report of Weights & Biases for a study; without --save into a file only.",
    )
    parser.add_argument("directory", help="folder of the study, such as outputs/<study>")
    parser.add_argument("--project", help="where the runs are (default: as they were logged)")
    parser.add_argument("--entity", help="account or team (default: as they were logged, else your own)")
    parser.add_argument("--out", help=f"the file (default: {SPECIFICATION} in the folder)")
    parser.add_argument("--save", action="store_true", help="save it to the server; needs a login and a network")
    choices = parser.parse_args(argv)
    try:
        shown = look_at(choices.directory, project=choices.project, entity=choices.entity)
        path = Path(choices.out) if choices.out else Path(choices.directory) / SPECIFICATION
        write_json(path, specification(shown))
        workspace, report = read_specification(path)
        panels = sum(len(section.panels) for section in workspace.sections)
        print(f"written and checked: {path} ({panels} panels, {len(report.blocks)} blocks)")
        missing, count = unknown_keys(shown, choices.directory)
        if missing:
            print(f"logged by no run here, so these panels stay empty: {', '.join(missing)}")
        if count:
            print(f"upload the runs: wandb sync {choices.directory}/*/wandb/offline-run-*")
        for address in save(shown) if choices.save else ():
            print(f"saved: {address}")
    except HeadstartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
