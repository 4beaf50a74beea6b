"""The reference of groups, options and commands as Markdown pages, from the sources that the program itself reads.

Names, defaults and explanations come from the YAML files of ``conf/``; what a key may be, and whether it changes the
result, from :mod:`headstart.config.schema` and the signature of the class that ``_target_`` names; commands from their
own ``--help``. ``site_hook.py`` puts the pages into the site.
"""

import importlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from headstart.commands.cli import COMMANDS
from headstart.commands.help import help_text
from headstart.config.schema import SPEC
from headstart.config.signature import signature
from headstart.system.catalog import GROUPS, Option, options
from headstart.system.options import NotInResult, OnlyWith, StepsOnly, marks, wording

HYDRA_GROUPS = {
    "hydra/launcher": "where the jobs of a sweep run",
    "hydra/sweeper": "which jobs a sweep has",
}
# What the launchers and the sweeper for searches pass on as keyword arguments.
_PASSED_ON = ("headstart.launch.pool.PoolSettings", "headstart.launch.search.SearchSettings")
_COMMAND = re.compile(r"(python |headstart |torchrun |wandb )")


@dataclass(frozen=True)
class Key:
    """A key of a YAML file.

    Attributes:
        name: dotted, with the group in front.
        default: as the file has it.
        comment: that stands with it.
    """

    name: str
    default: str
    comment: str


def pages(conf: Path) -> dict[str, str]:
    """Every page by its place in the site."""
    found = {"reference/config/keys.md": _keys_page(conf), "reference/commands.md": _commands_page(conf)}
    for group, purpose in {**GROUPS, **HYDRA_GROUPS}.items():
        name = group.replace("/", "-")
        found[f"reference/config/{name}.md"] = _group_page(group, purpose, conf)
    return found


def read_keys(text: str, group: str) -> list[Key]:
    """The keys of a YAML file with the comments before and behind them; ``_target_`` and ``defaults`` are left out.

    Args:
        text: of the file.
        group: that its keys belong to; empty for those of a whole configuration.
    """
    root, lines = yaml.compose(text), text.splitlines()
    header = len(header_lines(text))
    return list(_visit(root, group, "", lines, header, text)) if isinstance(root, yaml.MappingNode) else []


def header_lines(text: str) -> list[str]:
    """The comment that a YAML file begins with, line by line, without the marks."""
    found = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        found.append(line[1:].removeprefix(" "))
    return found


def header_markdown(text: str) -> str:
    """The header of a YAML file as paragraphs and blocks of commands."""
    blocks: list[tuple[str, list[str]]] = []
    joined = False
    for line in header_lines(text):
        words = line.strip()
        if words.startswith("@package"):
            continue
        kind = "text" if not words else _kind(line, joined, blocks)
        if not words or not blocks or blocks[-1][0] != kind:
            blocks.append((kind, []))
        if words:
            blocks[-1][1].append(line)
        joined = kind == "bash" and words.endswith("\\")
    return "\n\n".join(_block(kind, lines) for kind, lines in blocks if lines)


def plain(text: str) -> str:
    """Words of a comment as Markdown: keys and choices in code, nothing else with a meaning of its own."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _visit(
    node: yaml.MappingNode, prefix: str, above: str, lines: Sequence[str], header: int, text: str
) -> Iterator[Key]:
    for key, value in node.value:
        if key.value in {"_target_", "defaults"}:
            continue
        name = f"{prefix}.{key.value}" if prefix else key.value
        comment = " ".join(filter(None, (above, *_comments(key, value, lines, header))))
        above = ""
        if isinstance(value, yaml.MappingNode) and not value.flow_style and name not in SPEC:
            yield from _visit(value, name, comment, lines, header, text)
        else:
            yield Key(name, _default(value, text), comment)


def _comments(key: yaml.Node, value: yaml.Node, lines: Sequence[str], header: int) -> Iterator[str]:
    """The lines before a key, then what stands behind its value and goes on below."""
    row, column = key.start_mark.line, key.start_mark.column
    first = row
    while first > header and re.match(rf" {{{column}}}#", lines[first - 1]):
        first -= 1
    yield from (line.strip()[1:].strip() for line in lines[first:row])
    block = isinstance(value, yaml.MappingNode) and not value.flow_style
    behind = "" if block else lines[value.end_mark.line][value.end_mark.column :].strip()
    if behind.startswith("#"):
        yield behind[1:].strip()
        for line in lines[value.end_mark.line + 1 :]:
            if not re.match(rf" {{{column + 1},}}#", line):
                break
            yield line.strip()[1:].strip()


def _default(value: yaml.Node, text: str) -> str:
    if isinstance(value, yaml.MappingNode) and not value.flow_style:
        block = " " * value.start_mark.column + text[value.start_mark.index : value.end_mark.index]
        return yaml.safe_dump(yaml.safe_load(block), default_flow_style=True, width=1000, sort_keys=False).strip()
    return text[value.start_mark.index : value.end_mark.index].strip()


def _kind(line: str, joined: bool, blocks: Sequence[tuple[str, list[str]]]) -> str:
    if joined or _COMMAND.match(line.strip()):
        return "bash"
    deep = line.startswith("  ")
    return "plain" if deep else "text"


def _block(kind: str, lines: list[str]) -> str:
    if kind == "text":
        return plain(" ".join(line.strip() for line in lines))
    depth = min(len(line) - len(line.lstrip()) for line in lines)
    return "\n".join([f"```{'bash' if kind == 'bash' else 'text'}", *(line[depth:].rstrip() for line in lines), "```"])


def _escaped(text: str) -> str:
    groups = "|".join(sorted({name.partition(".")[0] for name in SPEC} | set(GROUPS)))
    token = re.compile(
        rf"(?<![\w/])((?:[+~]?[\w@/.\-]+=(?:\[[^\]]*\]|\{{[^}}]*\}}|<[^>]*>|\w+\(\d*\)|[^\s,;()]*[^\s,;:.()'])"
        rf"|(?:{groups})\.\w[\w.]*\w|\w+_\w+(?:\.\w+)*|root/\S*[^\s,;:.]|\$\{{[^}}]*\}}|\bnull\b))"
    )
    pieces = token.split(text)
    words = [re.sub(r"([\\*_<>\[\]#|])", r"\\\1", piece) for piece in pieces[::2]]
    codes = [f"`{piece}`" for piece in pieces[1::2]]
    return "".join(part for pair in zip(words, [*codes, ""], strict=True) for part in pair)


@dataclass(frozen=True)
class _Chosen:
    """An option of a group with all its keys, those of the files that it builds upon included."""

    name: str
    target: str
    keys: tuple[Key, ...]
    header: str


def _read_option(group: str, option: Option, conf: Path) -> _Chosen:
    path = conf / group / f"{option.name}.yaml"
    text = path.read_text(encoding="utf-8")
    keys = tuple(_with_defaults(path, group.replace("/", ".")))
    return _Chosen(option.name, str((yaml.safe_load(text) or {}).get("_target_", "")), keys, header_markdown(text))


def _with_defaults(path: Path, prefix: str) -> list[Key]:
    text = path.read_text(encoding="utf-8")
    own = {key.name: key for key in read_keys(text, prefix)}
    found: dict[str, Key] = {}
    for other in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(other, str) and other != "_self_":
            found |= {key.name: key for key in _with_defaults(path.with_name(f"{other}.yaml"), prefix)}
    for name, key in own.items():
        found[name] = replace(key, comment=key.comment or found.get(name, key).comment)
    return list(found.values())


def _group_page(group: str, purpose: str, conf: Path) -> str:
    chosen = [_read_option(group, option, conf) for option in options(group, [conf])]
    lines = [f"# `{group}`", f"{purpose[:1].upper()}{purpose[1:]}."]
    if len(chosen) == 1:
        return _joined(lines, _option_text(chosen[0], {}, alone=True))
    lines += ["| option | |", "|---|---|"]
    lines += [f"| [`{group}={item.name}`](#{item.name}) | {_summary(item.header)} |" for item in chosen]
    if group == "experiment":
        return _joined(lines, *(f"## {item.name} {{ #{item.name} }}\n\n{item.header}" for item in chosen))
    shared = _shared(chosen)
    return _joined(lines, *_shared_text(shared, chosen), *(_option_text(item, shared, alone=False) for item in chosen))


def _shared(chosen: Sequence[_Chosen]) -> dict[str, Key]:
    """Keys that most options have, or three say the same about, as most of these have them."""
    every: dict[str, list[Key]] = {}
    for item in chosen:
        for key in item.keys:
            every.setdefault(key.name, []).append(key)
    found = {}
    for name, keys in every.items():
        defaults = [key.default for key in keys]
        said = [key.comment for key in keys if not key.comment.startswith("As for ")] or [""]
        alike = [(key.default, key.comment) for key in keys]
        if len(keys) >= 3 and (2 * len(keys) >= len(chosen) or max(map(alike.count, alike)) >= 3):
            found[name] = Key(name, max(defaults, key=defaults.count), max(said, key=said.count))
    return found


def _shared_text(shared: dict[str, Key], chosen: Sequence[_Chosen]) -> Iterator[str]:
    places = {name: [item for item in chosen if any(key.name == name for key in item.keys)] for name in shared}
    every = [key for key in shared.values() if len(places[key.name]) == len(chosen)]
    several = [key for key in shared.values() if key not in every]
    for title, keys in (("Keys of every option", every), ("Keys of several options", several)):
        if keys:
            yield f"## {title}"
        for key in keys:
            names = ", ".join(f"`{item.name}`" for item in places[key.name])
            annotation = _annotation(key.name, places[key.name][0].target)
            yield _key_text(key, key.name, annotation, of=f"Of {names}." if key in several else "")


def _option_text(item: _Chosen, shared: dict[str, Key], *, alone: bool) -> str:
    lines = [] if alone else [f"## {item.name} {{ #{item.name} }}"]
    lines += [item.header, f"Class: `{item.target}`." if item.target else ""]
    for key in item.keys:
        usual = shared.get(key.name)
        if usual is None or (key.comment and key.comment != usual.comment):
            anchor = key.name if alone else f"{item.name}.{key.name}"
            lines.append(_key_text(key, anchor, _annotation(key.name, item.target)))
        elif key.default != usual.default:
            lines.append(f"[`{key.name}`](#{key.name}) is `{key.default}` here.")
    return _joined(lines)


def _summary(header: str) -> str:
    """The first sentence of a header."""
    return re.split(r"(?<!et al)\.(?=\s|$)|\n", header, maxsplit=1)[0].rstrip(":") + "."


def _key_text(key: Key, anchor: str, annotation: Any, *, of: str = "") -> str:
    allowed = "anything" if annotation is None else wording(annotation)
    choices = re.split(r", | or ", allowed)
    comment = "" if sorted(key.comment.split(" | ")) == sorted(choices) else key.comment
    facts = [of, "It has to be given." if key.default == "???" else f"Default: `{key.default}`."]
    if allowed != "anything":
        facts.append(f"May be {plain(allowed)}.")
    facts += _effects(annotation, key.name.rpartition(".")[0])
    title = f"#### `{key.name}` {{ #{anchor} }}"
    return _joined([title, plain(_sentence(comment)), " ".join(filter(None, facts))])


def _effects(annotation: Any, group: str) -> Iterator[str]:
    for mark in marks(annotation, OnlyWith):
        yield f"Has an effect with `{group}.{mark.name}={'` or `'.join(mark.values)}` only."
    if marks(annotation, StepsOnly):
        yield "Without effect on heads that are solved for."
    if marks(annotation, NotInResult):
        yield "Changes no result: runs that differ in it are one run."


def _sentence(comment: str) -> str:
    """A comment with a full stop, and a capital where it begins with a plain word."""
    text = comment.strip()
    if re.match(r"[a-z]+ [a-z]", text):
        text = text[:1].upper() + text[1:]
    return text if not text or text.endswith((".", "!", "?", ":")) else f"{text}."


@cache
def _annotation(name: str, target: str) -> Any:
    if name in SPEC:
        return SPEC[name]
    last = name.rpartition(".")[2]
    sources = [target, *(_PASSED_ON if name.startswith("hydra.") else ())]
    found = (takes.options.get(last) for source in sources if source and (takes := signature(source)))
    return next((hint for hint in found if hint is not None), None)


def _keys_page(conf: Path) -> str:
    """Keys that belong to no group."""
    text = (conf / "train.yaml").read_text(encoding="utf-8")
    keys = [key for key in read_keys(text, "") if key.name.partition(".")[0] not in GROUPS]
    top = ["# Keys of a run", "What every run has besides its groups (`conf/train.yaml`)."]
    return _joined(top, *(_key_text(key, key.name, _annotation(key.name, "")) for key in keys))


def _commands_page(conf: Path) -> str:
    parts = ["# Commands", "Each command prints this with `--help`."]
    texts = {"headstart train": help_text("headstart train", [conf])}
    for name, (module, _) in COMMANDS.items():
        texts[f"headstart {name}"] = _help_of(importlib.import_module(module).main)
    parts += [f"## {name}\n\n```text\n{text.strip()}\n```" for name, text in texts.items()]
    return _joined(parts)


def _help_of(main: Callable[[Sequence[str]], Any]) -> str:
    out, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with redirect_stdout(out):
            main(["--help"])
    except SystemExit:
        pass
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return out.getvalue()


def _joined(first: Iterable[str], *rest: str) -> str:
    """Blocks with a blank line between them; lines of tables stay together."""
    found = ""
    for part in (piece.strip("\n") for piece in (*first, *rest)):
        if part:
            together = not found or (part.startswith("|") and found.endswith("|\n"))
            found += f"{part}\n" if together else f"\n{part}\n"
    return found
