"""Another run that a choice names, as a teacher: where it is and what identifies its outcome."""

import json
from pathlib import Path
from typing import Any

from headstart.errors import ConfigError
from headstart.system.digests import digest


def find_run(choice: str, *, key: str) -> Path:
    """The directory of the one finished run that ``choice`` names.

    Args:
        choice: a run directory, a folder with one finished run in it, or a pattern that one finished run matches
            (``outputs/study/*-full-s${seed}-*``: in a sweep over seeds, each its own).
        key: that is set to it, for messages.

    Raises:
        ConfigError: no finished run, or several.
    """
    given = Path(choice).expanduser().absolute()
    if given.is_dir():
        places = [given] if (given / "result.json").is_file() else sorted(given.iterdir())
    else:
        places = sorted(Path(given.anchor).glob(str(given.relative_to(given.anchor))))
    found = [place for place in places if _result(place).get("status") == "done"]
    if not found:
        raise ConfigError(
            f"{key}={choice}: there is no finished run; give a run directory, with its result.json, or a pattern "
            "that one matches"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{key}={choice} names {len(found)} finished runs; give one of them, or a pattern that only one matches: "
            f"{', '.join(str(place) for place in found[:3])}"
        )
    return found[0]


def outcome(run: Path) -> str:
    """What identifies the outcome of a finished run: its fingerprint and its final metrics."""
    result = _result(run)
    return digest({"fingerprint": result.get("fingerprint"), "metrics": result.get("metrics")})


def _result(run: Path) -> dict[str, Any]:
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}
