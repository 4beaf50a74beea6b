"""What a single value of the configuration may be, and how to say so when it is not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """A test and its wording.

    Attributes:
        allows: whether a plain value is right.
        wants: completes "must be ...".
        options: the words it accepts, for the nearest one to a misspelt word.
    """

    allows: Callable[[Any], bool]
    wants: str
    options: tuple[str, ...] = ()

    def __or__(self, other: "Field") -> "Field":
        """Either of the two."""
        return Field(
            lambda value: self.allows(value) or other.allows(value),
            f"{self.wants} or {other.wants}",
            self.options + other.options,
        )


def whole(minimum: int | None = None) -> Field:
    """A whole number of at least ``minimum``; a bool is none, 3.0 is none."""
    limit = "" if minimum is None else f" of at least {minimum}"
    return Field(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and (minimum is None or v >= minimum),
        f"a whole number{limit}",
    )


def number(
    *,
    above: float | None = None,
    minimum: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
) -> Field:
    """A finite number within limits; a bool is none."""
    limits = [
        text
        for limit, text in (
            (above, f"above {above}"),
            (minimum, f"at least {minimum}"),
            (below, f"below {below}"),
            (maximum, f"at most {maximum}"),
        )
        if limit is not None
    ]

    def allows(value: Any) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (above is None or value > above)
            and (minimum is None or value >= minimum)
            and (below is None or value < below)
            and (maximum is None or value <= maximum)
        )

    return Field(allows, " ".join(["a number", " and ".join(limits)]).strip())


def one_of(*words: str) -> Field:
    """One of some words."""
    wants = f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    return Field(lambda value: isinstance(value, str) and value in words, wants, words)


def flag() -> Field:
    """True or false."""
    return Field(lambda value: isinstance(value, bool), "true or false", ("true", "false"))


def text() -> Field:
    """A text that is not empty."""
    return Field(lambda value: isinstance(value, str) and value != "", "a text")


def nothing() -> Field:
    """``null``."""
    return Field(lambda value: value is None, "null")


def list_of(item: Field, *, length: int | None = None) -> Field:
    """A list whose items are all right."""
    size = "" if length is None else f"{length} times "
    return Field(
        lambda v: isinstance(v, list) and (length is None or len(v) == length) and all(item.allows(i) for i in v),
        f"a list such as [...] with {size}{item.wants}",
    )


def mapping() -> Field:
    """Any keys with any values."""
    return Field(lambda value: isinstance(value, dict), "a mapping such as {key: value}")


def anything() -> Field:
    """Whatever the code behind it takes."""
    return Field(lambda value: True, "anything")


def like(default: Any) -> Field:
    """What may stand where a YAML file says ``default``: the same kind of value; anything for ``null`` and ``auto``."""
    if default is None or default == "auto" or (isinstance(default, str) and "${" in default):
        return anything()
    if isinstance(default, bool):
        return flag()
    if isinstance(default, int):
        return whole()
    if isinstance(default, float):
        return number()
    if isinstance(default, str):
        return text() | nothing()
    if isinstance(default, list):
        return Field(lambda value: isinstance(value, list) or value is None, "a list such as [1,2]")
    return anything()
