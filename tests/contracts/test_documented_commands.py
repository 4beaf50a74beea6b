"""Every command that README and the site show exists, takes what it is given, and asks for choices that can be made."""

import argparse
import ast
import importlib
import itertools
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf.errors import MissingMandatoryValue

from headstart.commands.cli import COMMANDS
from headstart.config import compose, resolve_run
from headstart.config.compose import plain
from headstart.config.schema import SPEC
from headstart.errors import ConfigError, WeightsError
from headstart.system.catalog import GROUPS
from headstart.system.names import leaves

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "experiments").rglob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
#: Programs of others; what they are given is theirs.
FOREIGN = {"wandb", "source"}
#: Keys of `headstart rank` and `advise` that are no choices of a training.
OWN_KEYS = ("backbones=", "budget=", "by=")
#: What a choice needs that is not here: a device, a run, data, a companion that the sentence around it names.
NOT_HERE = re.compile(r"no GPU is visible|there is no finished run|needs two classes|needs another task|needs task=")


class ParsedError(Exception):
    """A command has understood its arguments."""


def commands(text: str) -> Iterator[str]:
    """The commands of a page: lines of shell blocks, and in blocks with output those behind a ``$``."""
    for _, kind, _, block in FENCE.findall(text):
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        if kind in {"bash", ""}:
            yield from (line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))
        elif kind == "console":
            for line, after in itertools.pairwise([*lines, ""]):
                if line.startswith("$ ") and not after.startswith("error:"):
                    yield line.removeprefix("$ ")


def examples() -> list:
    import_reference()
    import site_reference

    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
    found: dict[str, str] = {}
    for page, text in {**texts, **site_reference.pages(ROOT / "conf")}.items():
        for line in commands(text):
            found.setdefault(" ".join(line.partition("  #")[0].split()), page)
    # What the sources say of themselves is composed by other tests, too.
    slow = {page: () if page in texts and "experiments" not in page else pytest.mark.slow for page in found.values()}
    return [pytest.param(line, id=f"{page}: {line}", marks=slow[page]) for line, page in found.items()]


def mentions() -> list:
    """Choices in the running text of pages, where they can stand alone."""
    known = {key.partition(".")[0] for key in SPEC} | set(GROUPS)
    usual = set(leaves(plain(compose([]))))
    found: dict[str, str] = {}
    for page in PAGES:
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))
        for code in re.findall(r"`([^`\n]+)`", prose):
            words = code.split()
            keys = [word.partition("=")[0].lstrip("+") for word in words]
            readable = all(re.fullmatch(r"[\w./+@]+=[\w./,\[\]\-]+", word) for word in words)
            elsewhere = "debug" in keys or any(key.partition(".")[0] not in known for key in keys)
            if not readable or elsewhere or ("," in code and len(words) > 1):
                continue
            if all(key in usual or key in GROUPS or key.partition(".")[0] in keys for key in keys):
                found.setdefault(code, page.relative_to(ROOT).as_posix())
    return [pytest.param(code, id=f"{page}: {code}") for code, page in found.items()]


@pytest.mark.slow
@pytest.mark.parametrize("code", mentions())
def test_a_choice_in_a_sentence_can_be_made(code: str, tmp_path: Path):
    can_be_composed(["-m", *code.split()] if "," in code and "[" not in code else code.split(), tmp_path)


def import_reference() -> None:
    if str(ROOT / "scripts") not in sys.path:
        sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture(autouse=True)
def _only_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def only(parse: Callable) -> Callable:
        def parse_only(*args, **kwargs):
            parse(*args, **kwargs)
            raise ParsedError

        return parse_only

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, only(getattr(argparse.ArgumentParser, name)))


@pytest.mark.parametrize("line", examples())
def test_a_documented_command_can_be_given(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)
    program, rest = words[0], words[1:]
    if program == "torchrun":
        rest = rest[rest.index("train.py") :]
        program = "python"
    if program == "python" and rest[0] == "train.py":
        can_be_composed(rest[1:], tmp_path)
    elif program == "python":
        assert (ROOT / rest[0]).is_file()
    elif program == "headstart" and rest[0] == "train":
        can_be_composed(rest[1:], tmp_path)
    elif program == "headstart":
        can_be_parsed(rest, tmp_path)
    elif program == "make":
        make_has(rest, tmp_path)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert rest[0] == "install"
        name, _, extra = rest[1].partition("[")
        assert name in ("headstart", ".")
        assert not extra or extra.rstrip("]") in extras
    elif program == ".ci/run":
        assert (ROOT / program).is_file()
    else:
        assert program in FOREIGN, f"{program} is not known; run it in a test, or say why it cannot be"


def make_has(rest: list[str], folder: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in rest:
        if word.startswith("ARGS="):
            can_be_composed(shlex.split(word.removeprefix("ARGS=")), folder)
        else:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE)


def can_be_parsed(rest: list[str], folder: Path) -> None:
    assert rest[0] in COMMANDS
    arguments = rest[1:]
    choices = [word for word in arguments if re.match(r"[\w.@+~/]+=", word) and not word.startswith(OWN_KEYS)]
    if rest[0] in {"inspect", "advise"} and "=" not in arguments[0]:
        choices += ["datamodule=folder", f"datamodule.root={arguments[0]}"]
    with pytest.raises(ParsedError):
        importlib.import_module(COMMANDS[rest[0]][0]).main(arguments)
    can_be_composed(choices, folder)


def can_be_composed(words: list[str], folder: Path) -> None:
    """The choices of a run, of a sweep each value once; anything but weights that cannot be had here must be right."""
    if words in (["--help"], []):
        return
    sweep = [word for word in words if word in {"-m", "--multirun"}]
    own = folder / "mine"
    write_own_files(own)
    with_folder = "--config-dir" in words
    words = [word for word in words if not word.startswith("-") and word != "mine"]
    columns = "path,mask" if "datamodule=masks_csv" in words else "path,target"
    given = [stand_in(word, folder, columns) for word in words if not word.startswith("hydra.")]
    choices = [list(values_of(word)) if sweep else [word] for word in given]
    for chosen in one_at_a_time(choices):
        try:
            resolve_run(compose(chosen, config_dir=own if with_folder else None))
        except (WeightsError, MissingMandatoryValue):
            continue
        except ConfigError as error:
            if not NOT_HERE.search(str(error)):
                raise


def write_own_files(folder: Path) -> None:
    """Files that pages tell the reader to write."""
    for page in PAGES:
        for _, kind, title, block in FENCE.findall(page.read_text(encoding="utf-8")):
            if kind == "yaml" and title.startswith("mine/"):
                path = folder.parent / title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block)


def stand_in(word: str, folder: Path, columns: str) -> str:
    """A choice with a folder or a table that is there in the place of the reader's."""
    key, equals, value = word.partition("=")
    if key.endswith(".root"):
        value = str(folder)
    if key.endswith(".manifest"):
        value = str(folder / "table.csv")
        Path(value).write_text(f"{columns}\na.png,1\nb.png,2\n")
    return f"{key}{equals}{value}"


def values_of(word: str) -> Iterator[str]:
    """A choice with each value that a sweep gives it; of numbers the first stands for all."""
    parsed = OverridesParser.create().parse_override(word)
    key = parsed.get_key_element()
    if not parsed.is_sweep_override():
        yield word
    elif parsed.is_discrete_sweep():
        values = list(parsed.sweep_string_iterator())
        numbers = all(re.fullmatch(r"[\d.e-]+", value) for value in values)
        yield from (f"{key}={value}" for value in (values[:1] if numbers else values))
    else:
        yield f"{key}=0.01"


def one_at_a_time(choices: list[list[str]]) -> Iterator[list[str]]:
    """The first values together, then every other one among the first of the rest."""
    first = [values[0] for values in choices]
    yield first
    for place, values in enumerate(choices):
        for value in values[1:]:
            yield [*first[:place], value, *first[place + 1 :]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_on_a_page_is_python(page: Path):
    for _, kind, _, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            ast.parse(block)


def test_the_check_sees_what_cannot_be(tmp_path: Path):
    with pytest.raises(Exception, match="optimizer"):
        can_be_composed(["optimizer.lrr=1"], tmp_path)
    with pytest.raises(Exception, match="headd"):
        can_be_composed(["-m", "headd=linear,mlp"], tmp_path)
    with pytest.raises(SystemExit):
        can_be_parsed(["predict", "RUN"], tmp_path)
    with pytest.raises(Exception, match="knnn"):
        can_be_composed(["-m", "head=linear,knnn"], tmp_path)


def test_words_of_blocks_are_found():
    text = "```bash\na \\\n  b   # c\n```\n```console\n$ d\nout\n```\n```text\nno\n```\n```\ne\n```\n"
    assert [shlex.split(line, comments=True) for line in commands(text)] == [["a", "b"], ["d"], ["e"]]
    assert list(itertools.islice(one_at_a_time([["a", "b"], ["c"]]), 9)) == [["a", "c"], ["b", "c"]]
