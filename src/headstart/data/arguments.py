"""Checks of a datamodule's arguments."""

from collections.abc import Mapping, Sequence

from headstart.errors import DataError

OPTIONS_OF_AUGMENT: Mapping[str, tuple[str, ...]] = {
    "shear_range": ("keras",),
    "zoom_range": ("keras",),
    "train_size": ("light", "randaug"),
    "kept_size": ("light",),
}
"""Which kinds of augmentation an option of theirs has an effect on."""


def pair(name: str, size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """``(height, width)`` of one number or two."""
    if size is None:
        return None
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
        raise DataError(f"datamodule.{name}={size} must be pixels: one number, or [height,width], or null.")
    return sides[0], sides[1]


def at_least(least: int, name: str, value: int) -> int:
    """The value, a whole number that is not too small."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DataError(f"datamodule.{name}={value} must be a whole number of at least {least}.")
    return value


def maybe_at_least(least: int, name: str, value: int | None) -> int | None:
    """The same where there is a value."""
    return None if value is None else at_least(least, name, value)


def one_of(allowed: Sequence[str], name: str, value: str) -> str:
    """The value, one of those allowed."""
    if value not in allowed:
        raise DataError(f"datamodule.{name}={value} is unknown; choose {', '.join(allowed)}.")
    return value
