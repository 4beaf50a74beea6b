"""Options as annotations: a component's signature is the one place that says what each of them may be.

    def __init__(self, *, batch_size: Annotated[int, AtLeast(1)] = 32, num_workers: Annotated[int, NotInResult] = 0)

The configuration reads the signature without importing the class (:mod:`headstart.config.signature`), and
:func:`checked` holds the same for whoever calls it. No torch here.
"""

import inspect
import math
import operator
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from headstart.errors import ConfigError, HeadstartError
from headstart.system.names import suggestion

# What Linux takes for a path.
_LONGEST_TEXT = 4095

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Limit:
    """Of every number in the annotated type."""

    bound: float
    words: ClassVar[str]
    holds: ClassVar[Callable[[Any, Any], bool]]


class Above(Limit):
    """Larger than a bound."""

    words, holds = "above", operator.gt


class AtLeast(Limit):
    """At least a bound."""

    words, holds = "at least", operator.ge


class Below(Limit):
    """Smaller than a bound."""

    words, holds = "below", operator.lt


class AtMost(Limit):
    """At most a bound."""

    words, holds = "at most", operator.le


Positive = Annotated[int, AtLeast(1)]
Count = Annotated[int, AtLeast(0)]


@dataclass(frozen=True)
class Pattern:
    """A text of a certain form.

    Attributes:
        expression: that the whole text matches.
        words: completes "a text that".
    """

    expression: str
    words: str


@dataclass(frozen=True)
class OnlyWith:
    """Has an effect where another option of the component has one of some values.

    Attributes:
        name: of the other option.
        values: of the other option.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class StepsOnly:
    """Is about gradient steps and what images they see, and has no effect on a head that is solved for.

    Attributes:
        unused: stands for it there.
        harmless: given for such a head it is passed over; otherwise it is an error.
    """

    unused: Any
    harmless: bool = False


class NotInResult:
    """Changes speed, display or places only: runs that differ in it are one run."""


@dataclass(frozen=True)
class Later:
    """Came after the first results: ``earlier`` is what it was before, and leaves fingerprints as they were."""

    earlier: Any = None


class FromCode:
    """Is passed by code, and so no option."""


def marks(annotation: Any, kind: type) -> list[Any]:
    """Those of a kind in an annotation: instances, or the class itself."""
    found = getattr(annotation, "__metadata__", ())
    return [mark for mark in found if mark is kind or isinstance(mark, kind)]


def fits(value: Any, annotation: Any, rules: Sequence[Any] = ()) -> bool:
    """Whether a plain value fits a type annotation; annotations of other kinds fit anything.

    Args:
        value: of plain types.
        annotation: that it must fit.
        rules: of an annotation around this one.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return fits(value, arguments[0], (*rules, *annotation.__metadata__))
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin in {Union, types.UnionType}:
        return any(fits(value, option, rules) for option in arguments)
    kind = origin or annotation
    if kind in {list, tuple, set, frozenset, Sequence, Set}:
        return _fits_sequence(value, kind, arguments, rules)
    if kind in {dict, Mapping}:
        return isinstance(value, Mapping)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation in {int, float}:
        number = isinstance(value, int | annotation) and not isinstance(value, bool) and math.isfinite(value)
        return number and all(type(rule).holds(value, rule.bound) for rule in rules if isinstance(rule, Limit))
    if annotation is str:
        return isinstance(value, str) and value != "" and _matches(value, rules)
    if isinstance(annotation, type) and issubclass(annotation, PurePath):
        return isinstance(value, str | PurePath)
    return isinstance(value, bool) if annotation is bool else True


def _fits_sequence(value: Any, kind: Any, arguments: tuple[Any, ...], rules: Sequence[Any]) -> bool:
    if not isinstance(value, list | tuple | set | frozenset):
        return False
    if kind is tuple and arguments and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(fits, value, arguments, [rules] * len(arguments)))
    return not arguments or all(fits(item, arguments[0], rules) for item in value)


def _matches(value: str, rules: Sequence[Any]) -> bool:
    return all(re.fullmatch(rule.expression, value) for rule in rules if isinstance(rule, Pattern))


def wording(annotation: Any, rules: Sequence[Any] = ()) -> str:
    """What fits an annotation; completes "must be"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return wording(arguments[0], (*rules, *annotation.__metadata__))
    if origin is Literal:
        texts = [str(option) for option in arguments]
        return f"{', '.join(texts[:-1])} or {texts[-1]}" if len(texts) > 1 else texts[0]
    if origin in {Union, types.UnionType}:
        return " or ".join(dict.fromkeys(wording(option, rules) for option in arguments))
    kind = origin or annotation
    if kind in {list, tuple, set, frozenset, Sequence, Set}:
        size = f"{len(arguments)} times " if kind is tuple and arguments and Ellipsis not in arguments else ""
        return (
            f"a list such as [...] with {size}{wording(arguments[0], rules)}" if arguments else "a list such as [1,2]"
        )
    if kind in {dict, Mapping}:
        return "a mapping such as {key: value}"
    if annotation in {int, float}:
        limits = " and ".join(f"{rule.words} {rule.bound}" for rule in rules if isinstance(rule, Limit))
        of = "of " if limits.startswith("at ") else ""
        return f"{'a whole number' if annotation is int else 'a number'} {of}{limits}".strip()
    if annotation is str or (isinstance(annotation, type) and issubclass(annotation, PurePath)):
        return "".join(["a text", *(f" that {rule.words}" for rule in rules if isinstance(rule, Pattern))])
    return {bool: "true or false", None: "null", type(None): "null"}.get(annotation, "anything")


def _words(annotation: Any) -> Iterator[str]:
    """That an annotation names, for the nearest one to a misspelt word."""
    if annotation is bool:
        yield from ("true", "false")
    for part in get_args(annotation):
        yield from (part,) if isinstance(part, str) else _words(part)


def shown(value: Any) -> str:
    """A value as it is written in YAML."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def misfit(key: str, value: Any, annotation: Any) -> str | None:
    """What is wrong with the value of a key, in one line, or None."""
    if isinstance(value, str) and (len(value) > _LONGEST_TEXT or "\0" in value):
        what = "a NUL character" if "\0" in value else f"{len(value):,} characters"
        return f"{key}={value[:40]!r}...: has {what}; a text or path has up to {_LONGEST_TEXT:,}, and no NUL"
    if fits(value, annotation):
        return None
    hint = suggestion(value, _words(annotation)) if isinstance(value, str) else ""
    return f"{key}={shown(value)}: must be {wording(annotation)}{hint}"


def without_effect(group: str, options: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    """The first option that is set where another one leaves it without effect, in one line, or None.

    Args:
        group: that the options are keys of.
        options: annotations by name.
        values: by name; one that is not there is not set.
    """
    for name, annotation in options.items():
        for mark in marks(annotation, OnlyWith):
            if values.get(name) and values.get(mark.name) not in mark.values:
                return (
                    f"{group}.{name}={shown(values[name])} has an effect with {group}.{mark.name}="
                    f"{' or '.join(mark.values)} only; leave it out, or set that"
                )
    return None


def checked(group: str, error: type[HeadstartError] = ConfigError) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function whose arguments must fit their annotations: for the ``__init__`` of what a configuration names.

    Args:
        group: of the configuration, which the errors' keys begin with.
        error: raised where an argument does not fit.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            options = _annotations(function)
            for name, annotation in options.items():
                if problem := misfit(f"{group}.{name}", bound.arguments[name], annotation):
                    raise error(problem)
            if problem := without_effect(group, options, bound.arguments):
                raise error(problem)
            return function(*args, **kwargs)

        return call

    return decorate


def check_fields(group: str, settings: Any) -> None:
    """Refuse a dataclass with a field that does not fit its annotation.

    Raises:
        ConfigError: with the field as a key of the group.
    """
    for name, annotation in get_type_hints(type(settings), include_extras=True).items():
        if problem := misfit(f"{group}.{name}", getattr(settings, name), annotation):
            raise ConfigError(problem)


@cache
def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError:  # a type that is imported for type checkers only
        return {}
    kinds = inspect.signature(function).parameters
    return {
        name: hint for name, hint in hints.items() if name in kinds and kinds[name].kind is kinds[name].KEYWORD_ONLY
    }
