"""``headstart export``: a finished run's backbone as a weights file with a card."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from headstart.config.foreign import add_trust, trust
from headstart.runs.reader import find_finished


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the files are written."""
    parser = argparse.ArgumentParser(
        prog="headstart export",
        description=(
            "Write the backbone of a finished run as export.safetensors with a card (export.json) and, apart from it, "
            "the classifier of its task. Use it with backbone.weights=RUN, or in plain timm."
        ),
    )
    parser.add_argument("run", help="run directory (or a folder that holds one finished run)")
    parser.add_argument("--output", metavar="DIR", help="folder for the files (default: the run's directory)")
    parser.add_argument("--licence", default="", help="of the weights, for the card (default: that of their source)")
    add_trust(parser)
    choices = parser.parse_args(argv)
    trust(choices.trust)
    if choices.output and Path(choices.output).exists() and not Path(choices.output).is_dir():
        parser.error(f"--output={choices.output} is a file; give a folder")
    directory = find_finished(choices.run)

    from headstart.execution.load import export_run

    path = export_run(directory, choices.output, licence=choices.licence)
    print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    for line in _usage(path):
        print(line)
    return 0


def _usage(path: Path) -> list[str]:
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    lines = [f"  python train.py backbone={card['architecture']} backbone.weights={path.parent}"]
    timm = card.get("timm")
    if timm and timm["strict"]:
        lines.append(f"  {timm['create']}.load_state_dict(safetensors.torch.load_file({str(path)!r}))")
    elif timm:
        lines.append(
            f"  in plain timm with strict=False: {len(timm['missing'])} tensors of {card['architecture']} that no "
            f"feature depends on are not in it ({', '.join(timm['missing'][:2])} …)"
        )
    return lines
