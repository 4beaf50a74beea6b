"""``headstart cache``: see, remove and check what is stored."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from headstart.errors import CacheError
from headstart.store.entry import Meta
from headstart.store.store import Store
from headstart.system.folders import user_cache_dir
from headstart.system.names import legible

FOLDERS = ("activations", "images")
"""Folders of ``paths.cache_dir`` that are stores."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Returns: 1 where a damaged entry was found, or one asked for could not be removed; else 0.

    Raises:
        CacheError: what is to be removed was not named.
    """
    choice = _parser().parse_args(argv)
    base = Path(choice.cache_dir).expanduser() if choice.cache_dir else user_cache_dir()
    stores = [Store(base / name) for name in FOLDERS]
    if choice.action == "ls":
        return _list(stores)
    if choice.action == "rm":
        return _remove(stores, choice.keys, everything=choice.all)
    return _verify(stores, choice.keys, remove=choice.remove)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headstart cache", description="See, remove and check stored activations.")
    parser.add_argument("--cache-dir", help="paths.cache_dir; by default the user's cache folder")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ls|rm|verify")
    actions.add_parser("ls", help="list the entries, the most recently used first")
    remove = actions.add_parser("rm", help="remove entries")
    remove.add_argument("keys", nargs="*", metavar="KEY", help="a key or its beginning, as `ls` shows it")
    remove.add_argument("--all", action="store_true", help="all entries that no process uses")
    verify = actions.add_parser("verify", help="read entries in full and compare them with their digests")
    verify.add_argument("keys", nargs="*", metavar="KEY", help="by default all")
    verify.add_argument("--remove", action="store_true", help="remove the damaged ones")
    return parser


def _list(stores: Sequence[Store]) -> int:
    entries = [(store, key) for store in stores for key in store.entries()]
    entries.sort(key=lambda place: -place[0].last_used(place[1]))
    total = 0
    for store, key in entries:
        size = store.size_bytes(key)
        total += size
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.last_used(key)))
        print(f"{key[:12]}  {_size(size):>9}  {used}  {legible(_describe(store.meta(key)))}")
    print(f"{len(entries)} entries, {_size(total)}, in {stores[0].root.parent}")
    return 0


def _remove(stores: Sequence[Store], keys: Sequence[str], *, everything: bool) -> int:
    found = _chosen(stores, () if everything else keys)
    unknown = [key for key in keys if not key or not any(place[1].startswith(key) for place in found)]
    if unknown or not (keys or everything):
        given = f"no entry is called {unknown[0] or repr(unknown[0])}" if unknown else "nothing was named"
        raise CacheError(f"{given}; give keys as `headstart cache ls` shows them, or --all")
    failed = 0
    for store in stores:
        store.clean()
    for store, key in found:
        size = store.size_bytes(key)
        if store.remove(key):
            print(f"removed {key[:12]} ({_size(size)})")
        else:
            print(f"{key[:12]} is in use by another process; it stays")
            failed = 1
    return failed


def _verify(stores: Sequence[Store], keys: Sequence[str], *, remove: bool) -> int:
    found = _chosen(stores, keys)
    damaged = 0
    for store, key in found:
        problem = store.verify(key)
        if problem is not None:
            damaged += 1
            print(f"{key[:12]} is damaged: {problem}")
            if remove and store.remove(key):
                print(f"removed {key[:12]}")
    print(f"{len(found) - damaged} of {len(found)} entries are as they were written")
    return int(damaged > 0)


def _chosen(stores: Sequence[Store], beginnings: Sequence[str]) -> list[tuple[Store, str]]:
    """Entries whose keys begin so; without beginnings all."""
    places = [(store, key) for store in stores for key in store.entries()]
    return [place for place in places if not beginnings or place[1].startswith(tuple(beginnings))]


def _describe(meta: Meta | None) -> str:
    if meta is None:
        return "damaged"
    about = meta.about
    dtype = about.get("kind", {}).get("stored", meta.dtype)
    parts = [f"{meta.rows:,} x {'x'.join(map(str, meta.shape)) or '1'} {dtype}", str(about.get("data", ""))]
    parts += [str(about.get("split", "")), str(about.get("backbone", "")), f"after {about.get('after', '?')}"]
    if about.get("view") is not None:
        parts.append(f"view {about['view']}")
    return "  ".join(parts)


def _size(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
