"""A folder as the Hugging Face hub has them: plain timm makes the whole classifier from it, labels included."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from headstart.backbones.contract import Backbone
from headstart.backbones.timm_network import creation_arguments
from headstart.data.images import MODES
from headstart.data.input_spec import InputSpec
from headstart.errors import ConfigError
from headstart.export.answers import Agreement
from headstart.export.backbone_file import backbone_state, write_tensors
from headstart.export.card import preprocessing
from headstart.system.atomic import atomic_write, write_json
from headstart.weights.report import SourceClassifier

WEIGHTS = "model.safetensors"


def write_folder(
    folder: Path, backbone: Backbone, classifier: SourceClassifier | None, card: Mapping[str, Any]
) -> None:
    """Write weights, ``config.json`` and ``preprocessing.json``; :func:`write_model_card` completes it.

    Args:
        folder: made if need be.
        backbone: trained.
        classifier: of its pooled features; None: the head is more than that.
        card: of the export.

    Raises:
        ConfigError: the network is none of timm's, or more or less than one of them.
    """
    spec = InputSpec.from_dict(card["input_spec"])
    if classifier is None or not hasattr(backbone, "network"):
        raise ConfigError(
            "--format hf needs a network of timm with one linear layer over classes (head=linear, logreg, ridge, ncm); "
            "--format onnx and --format torch take any"
        )
    name = backbone.name.partition(".")[0]
    arguments = {key: value for key, value in creation_arguments(name, spec, {}).items() if key != "in_chans"}
    plain: Any = timm.create_model(name, num_classes=len(classifier.weight), in_chans=spec.channels, **arguments)
    state = _whole_state(plain, backbone_state(backbone), classifier)
    config = {
        "architecture": name,
        "num_classes": len(card["classes"]),
        "num_features": plain.num_features,
        "label_names": card["classes"],
        "model_args": {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()},
        "pretrained_cfg": _timm_config(plain.default_cfg, spec, len(card["classes"])),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, state, {"format": "pt"})
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessing.json", {"steps": preprocessing(spec), "input_spec": spec.as_dict()})


def answers_of(folder: Path, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """What plain timm answers to pixels ``(C, H, W)`` with the folder's model.

    Raises:
        ConfigError: this version of timm cannot read it.
    """
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        raise ConfigError(
            f"timm {timm.__version__} does not load {folder} ({' '.join(str(error).split())[:200]}); from 1.0.16 on it "
            "reads such folders: pip install -U timm"
        ) from error
    with torch.inference_mode():
        answers: np.ndarray = torch.cat([network(torch.from_numpy(one[None])).softmax(dim=1) for one in inputs]).numpy()
    return answers


def write_model_card(folder: Path, card: Mapping[str, Any], agreement: Agreement) -> None:
    """``README.md``: what it is, how good it is, and five lines that use it."""
    sizes = ", ".join(f"{count:,} {split}" for split, count in card["data"]["sizes"].items())
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in card["metrics"].items() if value is not None)
    mode = MODES[card["input_spec"]["channels"]]
    text = f"""---
library_name: timm
tags: [image-classification, timm, headstart]
license: {json.dumps(card["licence"])}
---
# {card["architecture"]} on {card["data"]["name"]}

{len(card["classes"])} classes: {", ".join(card["classes"][:20])}{" ..." if len(card["classes"]) > 20 else ""}.
Trained from {card["started_from"]["source"] or "random weights"} on {card["data"]["name"]} ({sizes} images; data
fingerprint `{card["data"]["fingerprint"][:16]}`) with `{card["command"]}`.
Licence of the weights: {card["licence"]}.

```python
import timm, torch
from PIL import Image
model = timm.create_model("local-dir:.", pretrained=True).eval()
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
print(model(prepare(Image.open("image.jpg").convert("{mode}"))[None]).softmax(-1))
```

The order of the probabilities is that of `label_names` in `config.json`. `preprocessing.json` has every step of the
preprocessing for other languages. Against the model in its run: {agreement}.

| metric | value |
|---|---|
{metrics}
"""
    with atomic_write(folder / "README.md") as file:
        file.write(text)


def _whole_state(plain: Any, state: dict[str, Tensor], classifier: SourceClassifier) -> dict[str, Tensor]:
    """Backbone and classifier under the names that plain timm has."""
    layer, wanted = plain.default_cfg.get("classifier"), plain.state_dict()
    weight = wanted.get(f"{layer}.weight")
    if weight is not None and weight.numel() == classifier.weight.numel():
        state = {**state, f"{layer}.weight": classifier.weight.reshape(weight.shape), f"{layer}.bias": classifier.bias}
    odd = sorted(set(wanted) ^ set(state)) or [name for name in wanted if wanted[name].shape != state[name].shape]
    if odd:
        raise ConfigError(
            f"--format hf: this network is not plain timm's; they differ in {len(odd)} tensors ({', '.join(odd[:3])}). "
            "Where layers before the classifier are missing, train with backbone.pre_logits=keep; --format onnx and "
            "--format torch take the network as it is"
        )
    return {name: state[name] for name in wanted}


def _timm_config(usual: Mapping[str, Any], spec: InputSpec, classes: int) -> dict[str, Any]:
    return {
        "tag": "headstart",
        "custom_load": False,
        "input_size": list(spec.shape),
        "fixed_input_size": bool(usual.get("fixed_input_size", False)),
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
        "crop_mode": spec.crop_mode,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "num_classes": classes,
        "first_conv": usual.get("first_conv"),
        "classifier": usual.get("classifier"),
    }
