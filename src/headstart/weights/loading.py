"""Loading weights into a network: safely, strictly, and saying what was done."""

import logging
import pickle
import re
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.errors import WeightsError
from headstart.system.digest_memory import digest_file
from headstart.system.names import some
from headstart.weights import cards
from headstart.weights.hub import HubEntry, cached_file, torch_cache_dir
from headstart.weights.packages import timm_name
from headstart.weights.report import SourceClassifier, WeightsReport
from headstart.weights.sources import ResolvedWeights

State = dict[str, Tensor]

_log = logging.getLogger(__name__)

# Where training programs put a network inside a larger one.
_WRAPPERS = frozenset(
    {"module", "model", "backbone", "network", "net", "encoder", "encoder_q", "trunk", "visual", "_orig_mod"}
)
# And a state dict inside a checkpoint.
_HOLDERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "module", "network")
_ANSWER_S = 10.0
_LFS_POINTER = b"version https://git-lfs"


@dataclass
class Loaded:
    """What became of a weights file.

    Attributes:
        path: of the file.
        sha256: its digest.
        keys: tensors of the network that were loaded.
        missing: tensors of the network that the file did not have, the classifier's left out.
        unexpected: tensors of the file that the network does not have.
        classifier: of the source task.
        notes: what else a reader must know.
    """

    path: Path
    sha256: str
    keys: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    classifier: SourceClassifier | None = None
    notes: list[str] = field(default_factory=list)


def load_file(network: nn.Module, weights: ResolvedWeights, allow_unexpected: Sequence[str] = ()) -> Loaded:
    """Load a weights file into a timm network that still has its classifier, all but the classifier.

    Args:
        network: changed in place.
        weights: a safetensors file, or a checkpoint that holds nothing but tensors and plain containers.
        allow_unexpected: patterns of names (``head.*``) of tensors that the network lacks and that may be left out.
            What lies outside the network in the file (a projection head beside ``backbone.``) may be in any case.

    Raises:
        WeightsError: the file is damaged, unsafe or of another network.
    """
    path = weights.path
    assert path is not None
    loaded = Loaded(path, weights.sha256)
    state = unwrapped(read_state(path), path)
    if rules := weights.card.get("names"):
        state = {timm_name(name, rules): tensor for name, tensor in state.items()}
    targets = network.state_dict()
    classifiers = classifier_names(network)
    state, prefix, outside = _without_prefix(state, targets)
    if prefix:
        loaded.notes.append(f"the file's names begin with '{prefix}', which was stripped")
    state = {name: (t.float() if t.is_floating_point() else t).contiguous() for name, t in state.items()}
    loaded.classifier = take_classifier(state, classifiers)
    targets = {name: tensor for name, tensor in targets.items() if not _is_classifier(name, classifiers)}
    state = _repositioned(network, state, weights.card, loaded.notes)
    if not _fits(state, targets) or not state.keys() <= targets.keys() | outside:
        state = _converted(network, state, targets, loaded.notes)
    loaded.keys = frozenset(name for name in state if name in targets)
    loaded.missing = tuple(name for name in targets if name not in loaded.keys)
    loaded.unexpected = tuple(name for name in state if name not in loaded.keys)
    _check(network, state, targets, loaded)
    of_the_head = tuple(f"{classifier}." for classifier in classifiers)
    surplus = [name for name in loaded.unexpected if name not in outside and not name.startswith(of_the_head)]
    _check_surplus(surplus, allow_unexpected, loaded)
    network.load_state_dict({name: state[name] for name in loaded.keys}, strict=False)
    return loaded


def report(weights: ResolvedWeights, loaded: Loaded, kept: Mapping[str, Tensor]) -> WeightsReport:
    """What was loaded into the backbone, once the parts that it does not keep are gone.

    Everything in the backbone's state, ``kept``, must have been loaded.

    Raises:
        WeightsError: a tensor of the backbone was not in the file.
    """
    missing = tuple(name for name in loaded.missing if name in kept and not name.endswith("num_batches_tracked"))
    if missing:
        raise WeightsError(
            f"{loaded.path}: {len(missing)} of the backbone's {len(kept)} tensors are not in the file "
            f"({some(missing, 4)}); it is of another network, or incomplete"
        )
    return WeightsReport(
        source=weights.source,
        sha256=loaded.sha256,
        matched=sum(name in loaded.keys for name in kept),
        missing=tuple(name for name in loaded.missing if name in kept),
        unexpected=loaded.unexpected,
        classes=cards.classes(weights.card),
        licence=str(weights.card.get("licence", weights.card.get("license", ""))),
        notes=tuple(loaded.notes),
    )


def fetch(weights: ResolvedWeights) -> Path:
    """The file of hub weights, downloaded if it is not in the local cache.

    Raises:
        WeightsError: the download failed.
    """
    assert weights.hub is not None
    path = weights.path or cached_file(weights.hub)
    if path is not None:
        return path
    try:
        return _download(weights.hub)
    except Exception as error:  # the hub's client raises dozens of kinds, all of them meaning this
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{weights.source} could not be downloaded: {reason}; use backbone.weights=bundled or a PATH, "
            "or connect and run again"
        ) from error


def _download(entry: HubEntry) -> Path:
    if not entry.repository:
        # Its place in the cache is timm's own: what timm has downloaded before is found there.
        from timm.models._hub import download_cached_file

        return Path(download_cached_file(entry.url, check_hash=False, cache_dir=torch_cache_dir()))
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    revision = entry.revision or None
    for file in entry.files:
        try:
            # A hub that has fallen silent is asked once; the download itself would ask it for minutes.
            get_hf_file_metadata(hf_hub_url(entry.repository, file, revision=revision), timeout=_ANSWER_S)
            return Path(hf_hub_download(entry.repository, file, revision=revision))
        except EntryNotFoundError:
            continue
    raise WeightsError(f"{entry.repository} holds none of {', '.join(entry.files)}")


def read_state(path: Path) -> Any:
    """The content of a weights file; never arbitrary objects.

    Raises:
        WeightsError: the file is damaged or holds more than tensors and plain containers.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file as read

        try:
            return read(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(
                f"{path}: no readable safetensors file ({error}); it is truncated or damaged, copy it again"
            ) from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*TorchScript archive")  # said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own
        raise WeightsError(f"{path}: cannot be loaded safely: {_unsafe(path, error)}") from error


def _unsafe(path: Path, error: Exception) -> str:
    """What torch's many lines about a file that is no plain checkpoint come down to."""
    if any("/code/" in name for name in _members(path)):
        return (
            "it is a TorchScript program, not tensors alone; save its weights: "
            f"torch.save(torch.jit.load('{path.name}').state_dict(), '{path.stem}.pth')"
        )
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            return "it is a pointer of Git LFS, not the file itself; run: git lfs pull"
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found:
        return f"it holds a {found[1]}, not tensors alone; save the plain state_dict, best as .safetensors"
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, no checkpoint, or one with more than tensors; save the plain state_dict as .safetensors"
    first = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
    return f"it is truncated or damaged ({first}); copy it again"


def _members(path: Path) -> list[str]:
    """Names in an archive; none where it is no archive, or a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the network's classifier layers."""
    given = getattr(network, "pretrained_cfg", {}).get("classifier")
    return (given,) if isinstance(given, str) else tuple(given or ())


def take_classifier(state: State, names: tuple[str, ...]) -> SourceClassifier | None:
    """Remove the classifier from a state; the first one is returned."""
    found = []
    for name in names:
        weight, bias = state.pop(f"{name}.weight", None), state.pop(f"{name}.bias", None)
        if weight is not None and weight.flatten(1).shape[1] * weight.shape[0] == weight.numel():
            rows = weight.flatten(1)
            found.append(SourceClassifier(rows, bias if bias is not None else rows.new_zeros(len(rows))))
    return found[0] if found else None


def classifier_file(path: Path) -> Path:
    """Where the classifier of the source task lies, apart from the backbone's weights in ``path``."""
    return path.with_name(f"{path.stem}.classifier.safetensors")


def classifier_beside(path: Path, card: cards.Card) -> SourceClassifier | None:
    """The classifier of the source task from its own file, where the card names one.

    Raises:
        WeightsError: it is missing, damaged, or another one than the card says.
    """
    stated = card.get("classifier")
    if not isinstance(stated, Mapping):
        return None
    beside = path.with_name(Path(str(stated.get("file", ""))).name or classifier_file(path).name)
    if not beside.is_file():
        _log.info("%s, the classifier of the source task, is not there; methods that need it cannot be used", beside)
        return None
    if digest_file(beside) != stated.get("sha256"):
        raise WeightsError(
            f"{beside}: it is not the classifier that its card names; copy the export again, or remove it"
        )
    state = unwrapped(read_state(beside), beside)
    if state.keys() != {"weight", "bias"}:
        raise WeightsError(f"{beside}: it holds {some(state, 4)} instead of weight and bias; copy the export again")
    return SourceClassifier(state["weight"].float(), state["bias"].float())


def unwrapped(content: Any, path: Path) -> State:
    """The named tensors of a checkpoint, wherever it keeps them.

    Raises:
        WeightsError: there are none.
    """
    while isinstance(content, dict):
        holder = next((key for key in _HOLDERS if isinstance(content.get(key), dict)), None)
        if holder is None:
            break
        content = content[holder]
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not state:
        raise WeightsError(f"{path}: holds no named tensors; give the state_dict of a network")
    return state


def _without_prefix(state: State, targets: Mapping[str, Tensor]) -> tuple[State, str, frozenset[str]]:
    """The state without the wrapper's prefix that makes most names fit, that prefix, and the names that lack it."""
    prefixes: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for depth in range(len(parts)):
            if not set(parts[:depth]) <= _WRAPPERS:
                break
            if ".".join(parts[depth:]) in targets:
                prefixes[".".join([*parts[:depth], ""])] += 1
    prefix = max(prefixes, key=lambda key: (prefixes[key], -len(key)), default="")
    if not prefix:
        return state, "", frozenset()
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    outside = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    return {**outside, **inside}, prefix, frozenset(outside.keys() - inside.keys())


def _is_classifier(name: str, classifiers: tuple[str, ...]) -> bool:
    return any(name in {f"{classifier}.weight", f"{classifier}.bias"} for classifier in classifiers)


def _fits(state: State, targets: Mapping[str, Tensor]) -> bool:
    return all(name in state and state[name].shape == tensor.shape for name, tensor in targets.items())


def _repositioned(network: nn.Module, state: State, card: cards.Card, notes: list[str]) -> State:
    """With position embeddings of images that were not square resampled, which timm would take to be square."""
    patches: Any = getattr(network, "patch_embed", None)
    grid, spec, positions = getattr(patches, "grid_size", None), card.get("input_spec"), state.get("pos_embed")
    if grid is None or positions is None or not isinstance(spec, Mapping):
        return state
    rows, columns = (spec[side] // size for side, size in zip(("height", "width"), patches.patch_size, strict=True))
    others = positions.shape[1] - rows * columns
    if rows == columns or others < 0 or (rows, columns) == tuple(grid):
        return state
    from timm.layers import resample_abs_pos_embed

    notes.append("resampled to the image size: pos_embed")
    sizes = {"new_size": list(grid), "old_size": [rows, columns], "num_prefix_tokens": others}
    return {**state, "pos_embed": resample_abs_pos_embed(positions, **sizes)}


def _converted(network: nn.Module, state: State, targets: Mapping[str, Tensor], notes: list[str]) -> State:
    """What timm does when it loads: other names, positions resampled to the image size, input channels adapted."""
    from timm.models import adapt_input_conv

    module = sys.modules[type(network).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if convert is not None:
        try:
            before, state = state, dict(convert(dict(state), network))
        except Exception as error:  # a file of another network breaks it in any way
            _log.debug("timm's conversion of the weights failed: %s", error)
        else:
            resized = [n for n, t in state.items() if n in before and before[n].shape != t.shape]
            if resized:
                notes.append(f"resampled to the image size: {some(resized, 4)}")
    config = getattr(network, "pretrained_cfg", {})
    first = config.get("first_conv") or ()
    for name in (first,) if isinstance(first, str) else first:
        key = f"{name}.weight"
        if key not in state or key not in targets or state[key].shape == targets[key].shape:
            continue
        given, wanted = state[key].shape[1], targets[key].shape[1]
        try:
            adapted = adapt_input_conv(wanted, state[key])
        except (NotImplementedError, AssertionError, ValueError):
            continue
        state[key] = adapted
        notes.append(f"the first convolution was adapted from {given} to {wanted} input channels")
    return state


def _check(network: nn.Module, state: State, targets: Mapping[str, Tensor], loaded: Loaded) -> None:
    path, matched = loaded.path, loaded.keys
    name = getattr(network, "pretrained_cfg", {}).get("architecture") or type(network).__name__
    if not matched:
        raise WeightsError(
            f"{path}: none of its {len(state)} tensors ({some(state, 4)}) has a name of {name} ({some(targets, 4)}); "
            "it is of another network, or its names need another prefix"
        )
    wrong = [key for key in matched if state[key].shape != targets[key].shape]
    broken = [key for key in matched if state[key].is_floating_point() and not state[key].isfinite().all()]
    if broken and not wrong:
        raise WeightsError(
            f"{path}: {len(broken)} tensors hold NaN or infinite values ({some(sorted(broken), 4)}); their training "
            "diverged, or the file is damaged: give another"
        )
    if wrong:
        key = min(wrong)
        raise WeightsError(
            f"{path}: {len(wrong)} tensors have another shape than in {name}: {key} is {tuple(state[key].shape)}, "
            f"not {tuple(targets[key].shape)}; it is of another network"
        )


def _check_surplus(surplus: Sequence[str], allowed: Sequence[str], loaded: Loaded) -> None:
    refused = [name for name in surplus if not any(fnmatchcase(name, pattern) for pattern in allowed)]
    if refused:
        raise WeightsError(
            f"{loaded.path}: {len(refused)} of its tensors are not in the backbone ({some(refused, 4)}); it is of "
            "another network, or allow by name what may be left out: 'backbone.allow_unexpected=[head.*]'"
        )
    if surplus:
        loaded.notes.append(f"left out, as backbone.allow_unexpected says: {some(surplus, 4)}")
