"""The pages that show output: their commands run in order, and print what is shown."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: A duration, whatever it is written in; then any number.
TIME = re.compile(r"\d[\d.,]* (?:ms|s|min|h)\b(?: \d+ s)?")
NUMBER = re.compile(r"\d[\d.,:]*(?:e-\d+)?")
RULE = re.compile(r"─+")
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


class Block(NamedTuple):
    kind: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


PAGES = [
    page
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if any(block.kind == "console" or (block.kind == "python" and not block.title) for block in blocks(page))
]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``headstart`` and ``python`` are those of the tests."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, command in {"headstart": f"{sys.executable} -m headstart", "python": sys.executable}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    paths = [str(ROOT / "src"), str(tmp_path / "work")]
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "COLUMNS": "100",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT / "docs").as_posix())
def test_a_page_does_what_it_says(
    page: Path, shell: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in blocks(page):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.kind == "python":
            exec(compile(block.text, str(page), "exec"), names)
        elif block.kind == "console":
            for command, shown in transcript(block.text):
                done = subprocess.run(
                    ["bash", "-c", command],
                    env=shell,
                    cwd=folder,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,  # as both come to a terminal
                    text=True,
                    timeout=1800,
                )
                said = done.stdout
                fails = any(line.startswith("error:") for line in shown)
                assert (done.returncode != 0) == fails, f"{command}\n{said}"
                assert missing(shown, said.splitlines()) is None, f"{command}\n{said}"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert cell["cell_type"] in {"markdown", "code"}
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_every_key_of_a_result_is_on_its_page(train):
    page = (ROOT / "docs" / "reference" / "result.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### ([\w, ]+)\n(.*?)(?=^##)", page, re.DOTALL | re.MULTILINE))
    run = train("trainer.max_epochs=1").run
    values = json.loads((run.path / "result.json").read_text())
    for name, section in values.items():
        assert f'"{name}":' in page
        if name in {"weights", "data", "params", "cost", "cache", "details"}:
            assert [key for key in section if f"`{key}`" not in sections[name]] == []


def transcript(text: str) -> Iterator[tuple[str, list[str]]]:
    """Commands with the lines that are shown of their output."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = re.sub(r" *\\\n\s*", " ", part).partition("\n")
        yield command, [line for line in shown.splitlines() if line.strip() not in {"", "..."}]


def missing(shown: list[str], said: list[str]) -> str | None:
    """The first line that is shown and was not said, in this order; numbers may differ, ``...`` is anything."""
    left = iter([words(line) for line in said])
    for line in shown:
        pattern = ".*".join(re.escape(part.strip()) for part in words(line).split("..."))
        if not any(re.fullmatch(pattern, heard) for heard in left):
            return line
    return None


def words(line: str) -> str:
    return " ".join(RULE.sub("─", NUMBER.sub("0", TIME.sub("TIME", line))).split())


def test_what_is_shown_is_looked_for():
    text = "$ a \\\n  b\nEpoch 1/2  loss 0.5  3 s\n...\nends\n$ c\n"
    assert list(transcript(text)) == [("a b", ["Epoch 1/2  loss 0.5  3 s", "ends"]), ("c", [])]
    assert missing(["Epoch 1/2  loss 0.5  3 s", "ends"], ["Epoch 7/9 loss 1.25 1 min 02 s", "other", "ends"]) is None
    assert missing(["ends", "Epoch 1"], ["Epoch 1", "ends"]) == "Epoch 1"
    assert missing(["Run directory: ..."], ["Run directory: /a/b"]) is None
    assert missing(["val/acc 0.5"], ["val/f1 0.5"]) == "val/acc 0.5"
