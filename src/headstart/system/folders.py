"""Where the user's files go when no folder is named, and what is there of one that is."""

import os
import sys
from pathlib import Path


def user_cache_dir() -> Path:
    """``$HEADSTART_CACHE_DIR``, else the folder that the operating system means for caches; not made here."""
    if named := os.environ.get("HEADSTART_CACHE_DIR"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "headstart"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "headstart" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "headstart"


def nearest_existing(path: Path) -> Path:
    """The path itself if it is there, else the nearest folder above it that is."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())
