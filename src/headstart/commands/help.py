"""The help text of the train command, written for people and read from the YAML files themselves."""

import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from headstart.system.catalog import GROUPS, options

_INTRODUCTION = """\
Train an image classifier from a pretrained network.

Usage: {command} [group=option ...] [key=value ...] [-m]

Everything has a default: without arguments, the head of a ResNet-18 is trained on handwritten digits that come
with the package. A group is chosen by a name from the lists below; single keys are changed with a dot."""

_KEYS = """\
Keys that are always there
  seed=1                      head, order of images, augmentation; datamodule.split_seed has the split
  trainer.max_epochs=20       how long
  backbone.name=NAME          with backbone=timm: any network of timm
  backbone.weights=auto       auto | package | hub | bundled | none | PATH to a .safetensors, .pth or .ckpt file
  datamodule.root=PATH        with datamodule=folder: your images
  datamodule.batch_size=32    per device
  datamodule.image_size=224   default: what the weights expect
  optimizer.lr=0.001          learning rate
  paths.output_dir=outputs    where results go; paths.cache_dir and paths.data_dir likewise
  name=runs                   the study: runs that are compared share it
  rerun=failed                finished runs are returned, not repeated; all repeats them
  debug=true                  the whole traceback of an error"""

_EXAMPLES = """\
Examples
  {command}
      the embedded digits, a minute on a laptop
  {command} datamodule=folder datamodule.root=PATH strategy=full optimizer.lr=1e-4
      fine-tune on your own images, in folders root/<class>/* or root/{{train,val,test}}/<class>/*
  {command} backbone=timm backbone.name=convnext_nano head=mlp head.dropout=0.2
      any network of timm, another head
  {command} -m strategy=freeze,full,scratch seed=1,2,3,4,5 name=is_transfer_worth_it
      a study: fifteen runs to compare
  {command} trainer=ddp logger=wandb trainer.max_epochs=50
      all GPUs of this machine, results on Weights & Biases

-m runs every combination of values that are separated by commas. --cfg job prints the whole configuration and
stops, --config-dir PATH adds a folder of your own YAML files, --hydra-help shows the rest. Exit code 0 means a
complete result."""


def help_text(command: str, folders: Sequence[Path]) -> str:
    """The whole text for the terminal's width.

    Args:
        command: as the user called it.
        folders: of YAML files, the user's own first.
    """
    width = max(60, min(shutil.get_terminal_size((110, 24)).columns, 120))
    sections = [_INTRODUCTION.format(command=command), "Groups"]
    sections += [_group(group, purpose, folders, width) for group, purpose in GROUPS.items()]
    return "\n\n".join([*sections, _KEYS, _EXAMPLES.format(command=command)]) + "\n"


def _group(group: str, purpose: str, folders: Sequence[Path], width: int) -> str:
    offered = options(group, folders)
    column = max([len(option.name) for option in offered] or [0]) + 6
    lines = [f"  {group}: {purpose}"]
    for option in offered:
        text = _short(option.description, width - column)
        lines.append(f"    {option.name:<{column - 4}}{text}".rstrip())
    return "\n".join(lines)


def _short(text: str, width: int) -> str:
    """The text, or where it does not fit its first clause, unless that says too little."""
    text = text.rstrip(":")
    if len(text) <= width:
        return text
    for mark in (r"(?<!et al)\. ", "; ", ": ", ", "):
        clause = re.split(mark, text, maxsplit=1)[0]
        if width // 3 <= len(clause) <= width and clause.count("(") == clause.count(")"):
            return clause
    return textwrap.shorten(text, width=width, placeholder=" …")
