"""Dotted names of choices, and the nearest valid one to a misspelt one."""

import logging
import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any

_SIMILAR = 0.6
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
_NO_TEXT = re.compile(r"null|true|false|[+-]?(nan|inf|[\d._]+(e[+-]?\d+)?)", re.IGNORECASE)
_ILLEGIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def legible(text: str) -> str:
    r"""A name for people: bytes that are no UTF-8 and control characters as ``\xNN``, which no terminal obeys."""

    def shown(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\u{code:04x}" if code > 0xFF and not 0xDC80 <= code <= 0xDCFF else f"\\x{code & 0xFF:02x}"

    return _ILLEGIBLE.sub(shown, text)


class LegibleFormatter(logging.Formatter):
    """Of what is logged, which names files and classes."""

    def format(self, record: logging.LogRecord) -> str:
        """As usual, then legible."""
        return legible(super().format(record))


def cell(text: str) -> str:
    """A text as a spreadsheet shows it: one that begins like a formula gets an apostrophe, or it would be run."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """What to sort names by so that "class 2" comes before "class 10"."""
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
    return parts, name


def some(names: Iterable[str], limit: int = 3) -> str:
    """The first of the names, and how many more there are."""
    known = list(names)
    return ", ".join(known[:limit]) + (f" and {len(known) - limit} more" if len(known) > limit else "")


def override(key: str, value: object) -> str:
    """``key=value`` of a text as Hydra takes it: in quotes where its grammar would read something else, or nothing."""
    text = str(value)
    if _PLAIN.fullmatch(text) and not _NO_TEXT.fullmatch(text):
        return f"{key}={text}"
    # Before a quote, and only there, a backslash is doubled.
    quoted = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"{key}='{quoted}'"


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that ``name`` was probably meant to be, or None when nothing is near.

    A dotted key is compared as a whole and by its last part, so that ``lr`` and ``trainer.lr`` find ``optimizer.lr``.
    """
    last = name.rpartition(".")[2]
    best, score = None, _SIMILAR
    for candidate in valid:
        whole = _similarity(name, candidate)
        # A little less than the whole, so that the right group wins among equal last parts.
        part = 0.95 * _similarity(last, candidate.rpartition(".")[2]) if "." in candidate else 0.0
        if max(whole, part) + 0.01 * whole > score:
            best, score = candidate, max(whole, part) + 0.01 * whole
    return best


def suggestion(name: str, valid: Iterable[str]) -> str:
    """`` (did you mean X?)`` or an empty text."""
    found = nearest(name, valid)
    return f"; did you mean {found}?" if found else ""


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found.update(leaves(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _similarity(a: str, b: str) -> float:
    return SequenceMatcher(None, a.lower(), b.lower(), autojunk=False).ratio()
