"""What a component takes, read from the source of its class: importing it would import torch."""

import ast
import typing
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.system import options

_TYPES = {kind.__name__: kind for kind in (bool, dict, float, frozenset, int, list, set, str, tuple)}
_NAMES: Mapping[str, Any] = {
    **_TYPES,
    **{name: getattr(typing, name) for name in ("Annotated", "Any", "Literal", "Optional", "Union")},
    **{name: getattr(options, name) for name in ("Above", "AtLeast", "AtMost", "Below", "FromCode", "Later")},
    **{name: getattr(options, name) for name in ("NotInResult", "OnlyWith", "Pattern", "StepsOnly")},
    **{"Mapping": Mapping, "Path": Path, "Sequence": Sequence, "Set": Set},
}


@dataclass(frozen=True)
class Signature:
    """Options of a class.

    Attributes:
        options: annotations by name; Any where the source does not say.
        open: whether it may take others too.
    """

    options: Mapping[str, Any]
    open: bool = False

    def marked(self, kind: type) -> dict[str, Any]:
        """The options that have a mark, with it."""
        return {name: found[0] for name, hint in self.options.items() if (found := options.marks(hint, kind))}


@cache
def signature(target: str) -> Signature | None:
    """Of the class of a ``_target_``, its bases' included; None where its source cannot be read."""
    module, _, name = target.rpartition(".")
    return _signature(module, name)


def _signature(module: str, name: str) -> Signature | None:
    home, node = _find(module, name)
    if not isinstance(node, ast.ClassDef):
        return None
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        inherited = _inherited(home, node)
        own = {field: _evaluated(home, hint) for field, hint in _fields(node)}
        return Signature({**(inherited.options if inherited else {}), **own})
    init = next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
    if init is None:
        return _inherited(home, node)
    positional = init.args.args[len(init.args.args) - len(init.args.defaults) :]
    own = {item.arg: _evaluated(home, item.annotation) for item in (*positional, *init.args.kwonlyargs)}
    own = {name: hint for name, hint in own.items() if not options.marks(hint, options.FromCode)}
    if init.args.kwarg is None:
        return Signature(own)
    inherited = _inherited(home, node)
    return Signature({**inherited.options, **own}, inherited.open) if inherited else Signature(own, open=True)


def _inherited(module: str, node: ast.ClassDef) -> Signature | None:
    """Of the first base that says what it takes."""
    found = (_signature(module, base.id) for base in node.bases if isinstance(base, ast.Name))
    return next((item for item in found if item is not None), None)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            fixed = "ClassVar" in ast.unparse(part.annotation)
            if not fixed and not (part.value is not None and "init=False" in ast.unparse(part.value)):
                yield part.target.id, part.annotation


class _Scope(dict[str, Any]):
    """Names that annotations of a module use: a few known ones, and what the module itself calls a type."""

    def __init__(self, module: str) -> None:
        super().__init__(_NAMES)
        self._module = module

    def __missing__(self, name: str) -> Any:
        if name == "Tensor":  # torch's, which no configuration holds and whose long file is not read to find that out
            raise KeyError(name)
        home, node = _find(self._module, name)
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            raise KeyError(name)
        return eval(ast.unparse(node.value), {"__builtins__": {}}, _Scope(home))


def _evaluated(module: str, annotation: ast.expr | None) -> Any:
    if annotation is None:
        return Any
    text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    try:
        return eval(str(text), {"__builtins__": {}}, _Scope(module))
    except Exception:  # a user's annotations may be anything; building the run will say whether it can be done
        return Any


def _find(module: str, name: str) -> tuple[str, ast.stmt | None]:
    """Where a name is defined, through imports, and by what."""
    parsed = _parsed(module)
    for node in _statements(parsed.body if parsed else []):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(node.module, alias.name)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(item, ast.Name) and item.id == name for item in targets):
            return module, node
    return module, None


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Of a module, those under conditions (``if TYPE_CHECKING``) included."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements(node.body)


@cache
def _parsed(module: str) -> ast.Module | None:
    """The source of a module, whose parents are not imported either."""
    first, *others = module.split(".")
    try:
        spec = find_spec(first)
        for place in range(len(others)):
            if spec is None:
                return None
            spec = PathFinder.find_spec(".".join([first, *others[: place + 1]]), spec.submodule_search_locations)
        if spec is None or not str(spec.origin).endswith(".py"):
            return None
        return ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8"))
    except (ImportError, ValueError, SyntaxError, OSError):
        return None
