"""What timm's hub has for a network, and whether it can be had: without importing torch, timm or waiting long.

timm lists its pretrained weights in dictionaries in its source files; they are read as text, since importing timm
takes seconds and is not needed to decide where weights come from.
"""

import ast
import importlib.util
import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from headstart.system.network import reachable

_FILES = ("model.safetensors", "pytorch_model.bin")
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class HubEntry:
    """One set of weights that timm offers.

    Attributes:
        name: network and tag (``resnet18.a1_in1k``).
        repository: on the hub, or empty where the weights are only a plain download.
        revision: of the repository, or empty for its main branch.
        files: names of the weights file, the preferred first.
        url: of the plain download, or empty.
    """

    name: str
    repository: str
    revision: str = ""
    files: tuple[str, ...] = _FILES
    url: str = ""


@cache
def hub_entry(name: str) -> HubEntry | None:
    """The weights timm would load for ``name`` (``resnet18``, or with a tag), or None where it has none."""
    architecture, _, tag = name.partition(".")
    offers = list(_offers(architecture))
    offers = [(key, call) for key, call in offers if not tag or key.partition(".")[2].strip("*") == tag]
    entries = [(key, _entry(key, call)) for key, call in offers]
    useful = [(key, entry) for key, entry in entries if entry is not None]
    # As timm does: an entry without a tag or with a starred one is the default, else the first with weights.
    marked = [entry for key, entry in useful if "." not in key or key.endswith("*")]
    return marked[0] if marked else useful[0][1] if useful else None


def cached_file(entry: HubEntry) -> Path | None:
    """The weights file in the local cache of the hub, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    if entry.repository:
        for file in entry.files:
            found = try_to_load_from_cache(entry.repository, file, revision=entry.revision or None)
            if isinstance(found, str):
                return Path(found)
        return None
    download = torch_cache_dir() / Path(urllib.parse.urlparse(entry.url).path).name
    return download if download.is_file() else None


def torch_cache_dir() -> Path:
    """Where torch keeps plain downloads."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


@cache
def hub_reachable() -> bool:
    """Whether the hub may be asked and answers within three seconds; asked once per process."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and reachable(constants.ENDPOINT)


def _offers(architecture: str) -> Iterator[tuple[str, ast.Call]]:
    """Keys ``architecture`` and ``architecture.tag`` of timm's dictionaries, with the call that describes them."""
    found = importlib.util.find_spec("timm")
    if found is None or not found.submodule_search_locations:
        return
    wanted = (f"'{architecture}'", f"'{architecture}.", f'"{architecture}"', f'"{architecture}.')
    for path in sorted(Path(found.submodule_search_locations[0], "models").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not any(key in text for key in wanted):
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Dict):
                continue
            for key, value in zip(node.keys, node.values, strict=True):
                name = key.value if isinstance(key, ast.Constant) else None
                known = isinstance(name, str) and name.partition(".")[0] == architecture
                if known and isinstance(value, ast.Call):
                    yield str(name), value


def _entry(key: str, call: ast.Call) -> HubEntry | None:
    given: dict[str, Any] = {
        word.arg: word.value.value for word in call.keywords if word.arg and isinstance(word.value, ast.Constant)
    }
    name = key.rstrip("*")
    url = given.get("url") or ""
    repository, _, revision = (given.get("hf_hub_id") or "").partition("@")
    if not repository and not url:
        return None
    if repository == "timm/":
        repository += name
    file = given.get("hf_hub_filename")
    files = _FILES if not file else _OPEN_CLIP_FILES if file in _OPEN_CLIP_FILES else (file,)
    return HubEntry(name, repository, revision, files, url)
