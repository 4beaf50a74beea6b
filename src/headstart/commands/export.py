"""``headstart export``: a finished run's model for use elsewhere."""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from headstart.commands.arguments import check_output_place
from headstart.config.foreign import add_trust, trust
from headstart.runs.reader import find_finished
from headstart.system.names import legible, override


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the files are written."""
    parser = argparse.ArgumentParser(
        prog="headstart export",
        description="Write the model of a finished run for use elsewhere, compared with the run's own on its images.",
    )
    parser.add_argument("run", help="run directory (or a folder that holds one finished run)")
    parser.add_argument(
        "--format",
        default="timm",
        choices=("timm", "onnx", "torch", "hf"),
        help="timm: the backbone's tensors, for backbone.weights=RUN and plain timm (default); onnx: the whole model; "
        "torch: a graph of torch.export; hf: a Hugging Face style folder that plain timm loads",
    )
    parser.add_argument("--output", metavar="DIR", help="folder for the files (default: in the run's directory)")
    parser.add_argument("--licence", default="", help="of the weights, for the card (default: that of their source)")
    parser.add_argument("--preprocess", action="store_true", help="onnx: resize, crop and normalise within the graph")
    parser.add_argument("--int8", action="store_true", help="onnx: also in 8 bits, with the accuracy before and after")
    add_trust(parser)
    choices = parser.parse_args(argv)
    trust(choices.trust)
    if (choices.preprocess or choices.int8) and choices.format != "onnx":
        parser.error("--preprocess and --int8 go with --format onnx only")
    if choices.output:
        check_output_place(choices.output, folder=True)
    directory = find_finished(choices.run)

    from headstart.execution.export import export_run

    path = export_run(
        directory,
        choices.output,
        form=choices.format,
        licence=choices.licence,
        preprocess=choices.preprocess,
        int8=choices.int8,
    )
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    print(legible(f"written: {path} ({size / 1e6:.1f} MB)"))
    for line in _usage(path) if choices.format == "timm" else _hint(path, choices.format):
        print(legible(line))
    return 0


def _hint(path: Path, form: str) -> list[str]:
    """How to load it."""
    lines = {
        "onnx": f"  onnxruntime.InferenceSession({str(path)!r})",
        "torch": f"  torch.export.load({str(path)!r}).module()",
        "hf": f"  timm.create_model('local-dir:{path}', pretrained=True)",
    }
    return [lines[form]]


def _usage(path: Path) -> list[str]:
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    weights = override("backbone.weights", path.parent)
    lines = [f"  headstart train backbone={card['architecture']} {shlex.quote(weights)}"]
    timm = card.get("timm")
    if timm and timm["strict"]:
        lines.append(f"  {timm['create']}.load_state_dict(safetensors.torch.load_file({str(path)!r}))")
    elif timm:
        lines.append(
            f"  in plain timm with strict=False: {len(timm['missing'])} tensors of {card['architecture']} that no "
            f"feature depends on are not in it ({', '.join(timm['missing'][:2])} …)"
        )
    return lines
