"""What is written about a weights file: its network, its input, its classes. No torch here.

A card is a JSON object beside the file, or the metadata in a safetensors header, whose values are all strings.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from headstart.data.input_spec import InputSpec
from headstart.errors import WeightsError
from headstart.system.regular import check_regular

Card = Mapping[str, Any]


def read_card(path: Path) -> dict[str, Any]:
    """A card file.

    Raises:
        WeightsError: it cannot be read, or is no JSON object.
    """
    try:
        check_regular(path)
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: the card of the weights cannot be read ({error}); repair or remove it") from error
    if not isinstance(card, dict):
        raise WeightsError(f"{path}: the card of the weights is not a JSON object; repair or remove it")
    return card


def header_card(path: Path) -> dict[str, Any]:
    """The metadata in the header of a safetensors file; empty for other files and damaged ones."""
    if path.suffix != ".safetensors":
        return {}
    try:
        check_regular(path)
        with safe_open(path, "numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}  # Loading the file says what is wrong with it.


def architecture(card: Card) -> str:
    """Name of the network, without remarks and tag, or empty."""
    return str(card.get("architecture", "")).split(" ")[0].partition(".")[0]


def check_architecture(card: Card, name: str, source: str) -> None:
    """Refuse weights whose card names another network; a card that names none is no reason.

    Raises:
        WeightsError: it does.
    """
    stated, wanted = architecture(card), name.partition(".")[0]
    if stated and stated != wanted:
        raise WeightsError(
            f"{source}: weights of {stated} cannot be loaded into backbone.name={name}; choose backbone.name={stated}, "
            f"or weights of {wanted}"
        )


def classes(card: Card) -> tuple[str, ...]:
    """Class names of the source task, in the order of the classifier's rows."""
    given = card.get("classes", ())
    if given == "imagenet-1k":
        return _imagenet_classes()
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = given.split(",")
    if not isinstance(given, list | tuple):
        return ()
    return tuple(str(item[-1]) if isinstance(item, list | tuple) and item else str(item) for item in given)


@cache
def _imagenet_classes() -> tuple[str, ...]:
    """ImageNet-1k's class names as timm's own files list them; importing timm takes seconds."""
    timm = find_spec("timm")
    folder = Path(*(timm.submodule_search_locations or ()) if timm else (), "data", "_info")
    rows = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    names = dict(row.split("\t", 1) for row in rows)
    return tuple(names[synset] for synset in (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split())


def input_spec(card: Card) -> InputSpec | None:
    """What the weights expect of their input, or None where the card does not say.

    Raises:
        WeightsError: the card says it in a way that makes no sense.
    """
    try:
        given = card.get("input_spec")
        if given is not None:
            return InputSpec.from_dict(json.loads(given) if isinstance(given, str) else dict(given)).checked()
        if "input_size" not in card:
            return None
        channels, height, width = (int(value) for value in _numbers(card["input_size"]))
        spec = InputSpec(channels=channels, height=height, width=width)
        values: dict[str, Any] = spec.as_dict()
        for key in ("mean", "std"):
            if key in card:
                values[key] = list(_numbers(card[key]))
        values["interpolation"] = card.get("interpolation", spec.interpolation)
        if "crop_pct" in card:
            values["crop_pct"] = float(card["crop_pct"])
        values["crop_mode"] = card.get("crop_mode", spec.crop_mode)
        if card.get("crop") == "none":
            values |= {"crop_pct": 1.0, "crop_mode": "squash"}
        return InputSpec.from_dict(values).checked()
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise WeightsError(
            f"the card of the weights describes their input wrongly: {error}; repair or remove it"
        ) from error


def _numbers(value: Any) -> tuple[float, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(float(item) for item in items)
