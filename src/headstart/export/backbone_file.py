"""Writing a trained backbone as a weights file with a card, for ``backbone.weights`` and for plain timm.

Three files: the backbone's tensors under the names that timm has for them (``export.safetensors``), the classifier of
the task it was trained on in a file of its own, so that timm can load the first one strictly, and the card.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from headstart.backbones.contract import Backbone
from headstart.backbones.timm_network import strict_in_timm
from headstart.data.input_spec import InputSpec
from headstart.export.card import describe
from headstart.model.transfer_model import TransferModel
from headstart.runs.result import Result
from headstart.system.atomic import atomic_write, write_json
from headstart.tasks import Task
from headstart.weights.loading import classifier_file
from headstart.weights.report import SourceClassifier
from headstart.weights.sources import EXPORT_NAME

FORMAT = 1


def export_model(
    folder: Path,
    model: TransferModel,
    task: Task,
    result: Result,
    config: Mapping[str, Any],
    spec: InputSpec,
    *,
    licence: str = "",
) -> Path:
    """Write the files; the card comes last.

    Args:
        folder: made if need be.
        model: trained.
        task: of the model.
        result: of its run.
        config: the run's resolved choices.
        spec: of the images.
        licence: of the weights; empty: that of the weights the run started from.

    Returns: the weights file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / EXPORT_NAME
    backbone, state = model.backbone, backbone_state(model.backbone)
    card = {
        "format": FORMAT,
        "architecture": backbone.name.partition(".")[0],
        **describe(task, result, config, spec, licence=licence),
        **({"timm": strict_in_timm(backbone.name, spec, state)} if hasattr(backbone, "network") else {}),
    }
    header = {key: json.dumps(card[key]) for key in ("input_spec", "classes")}
    card["sha256"] = write_tensors(
        path, state, {"architecture": card["architecture"], "licence": card["licence"], **header}
    )
    card["tensors"] = len(state)
    classifier = task_classifier(model, task)
    beside = classifier_file(path)
    if classifier is None:
        beside.unlink(missing_ok=True)
    else:
        tensors = {"weight": classifier.weight, "bias": classifier.bias}
        card["classifier"] = {
            "file": beside.name,
            "sha256": write_tensors(beside, tensors, {"classes": header["classes"]}),
        }
    write_json(path.with_suffix(".json"), card)
    return path


def backbone_state(backbone: Backbone) -> dict[str, Tensor]:
    """The backbone's tensors on the CPU, by the names of the network itself."""
    network = getattr(backbone, "network", backbone)
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}


def task_classifier(model: TransferModel, task: Task) -> SourceClassifier | None:
    """The head as one row a class on pooled features, where it is that: a single linear layer over classes."""
    layer: nn.Linear | None = getattr(model.head, "plain_linear", None)
    if layer is None or not task.one_class:
        return None
    weight, bias = (tensor.detach().cpu() / task.temperature for tensor in (layer.weight, layer.bias))
    if len(weight) == 1:  # a sigmoid of one output is a softmax of nothing and that output
        weight, bias = torch.cat((torch.zeros_like(weight), weight)), torch.cat((torch.zeros_like(bias), bias))
    return SourceClassifier(weight, bias)


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """Write a safetensors file whole or not at all. Returns its SHA-256."""
    content = safetensors.torch.save(tensors, metadata=header)
    # The library writes the header's texts in an order of chance; the same run must give the same file.
    end = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:end])
    entries["__metadata__"] = dict(sorted(entries["__metadata__"].items()))
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = len(text).to_bytes(8, "little") + text + content[end:]
    with atomic_write(path, "wb") as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()
