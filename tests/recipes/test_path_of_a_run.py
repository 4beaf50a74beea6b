"""From the entry point to the first line that builds something, and the page that shows it."""

import re
import subprocess
import sys
from pathlib import Path

SPY = """
import os, runpy, sys, traceback
import headstart.config
from headstart.config.settings import Component
from headstart.config import resolve

resolved = []
def counted(config, really=resolve.resolve_run):
    resolved.append(1)
    return really(config)
resolve.resolve_run = headstart.config.resolve_run = counted

def build(self, **more):
    calls = [f.name for f in traceback.extract_stack() if "/src/headstart/" in f.filename]
    print("CALLS", *calls)
    print("RESOLVED", len(resolved), flush=True)
    os._exit(0)
Component.build = build
sys.argv = [{entry!r}, *{overrides!r}]
runpy.run_path({entry!r}, run_name="__main__")
"""


def test_eight_calls_lead_to_the_first_thing_built_and_the_run_is_resolved_once(repository: Path, tmp_path: Path):
    overrides = ["backbone.weights=bundled", "trainer=cpu", f"paths.output_dir={tmp_path}"]
    code = SPY.format(entry=str(repository / "train.py"), overrides=overrides)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    calls = re.search(r"^CALLS (.*)$", done.stdout, re.MULTILINE)
    assert calls, done.stderr
    names = calls[1].split()
    assert names == ["whole_process", "train_main", "__call__", "train", "execute", "prepare_model"]
    assert len([*names, "build"]) <= 8
    assert "RESOLVED 1" in done.stdout


def test_every_step_on_the_page_is_where_it_says(repository: Path):
    page = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.split("## The path of a run\n")[1].split("\n## ")[0]
    steps = re.findall(r"\[`([\w.]+)`\]\(([\w./]+)\)", section)
    assert len(steps) >= 12
    for name, path in steps:
        text = (repository / path).read_text(encoding="utf-8")
        known = Path(path).name == name or re.search(rf"^(def|class) {name}\b", text, re.MULTILINE)
        assert known, f"{name} is not in {path}"
    assert [line.partition(".")[0] for line in section.splitlines() if re.match(r"\d+\. \[", line)] == list("123456789")
