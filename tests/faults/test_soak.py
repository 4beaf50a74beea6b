"""The soak itself, a few tries of each part: it ends well here, and it counts what must not happen."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow
def test_a_short_soak_is_clean(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    choices = ["--kills", "2", "--damaged", "4", "--hostile", "8", "--seed", "3", "--out", str(table)]
    done = subprocess.run([sys.executable, SCRIPTS / "soak.py", *choices], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    total = table.read_text().splitlines()[-1].split("|")
    assert int(total[2]) >= 2 + 4 + 8
    assert {cell.strip() for cell in total[5:-1]} == {"0"}


def test_whatever_is_neither_the_same_nor_told_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from soak import BAD, table
    from soak_process import Done

    ends = {
        Done(0, ""): "same",
        Done(1, "error: x"): "told",
        Done(1, "killed"): "without a word",
        Done(None, ""): "hang",
        Done(1, "Traceback (most recent call last):\nerror: x"): "traceback",
        Done(0, "Traceback (most recent call last):"): "traceback",
    }
    assert {done.outcome for done in ends} == {*ends.values()}
    assert all(done.outcome == outcome for done, outcome in ends.items())
    assert {*ends.values()} - {"same", "told"} <= {*BAD}
    lines = table({"a": Counter(same=2, told=1), "b": Counter(hang=1)}).splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["3", "1", "4"]
    assert lines[-1].split("|")[3:8] == [" 2 ", " 1 ", " 0 ", " 0 ", " 1 "]


def test_a_strike_falls_just_before_the_write_that_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(SCRIPTS)!r})
import headstart.commands.cli as cli
from pathlib import Path
from soak_process import Strike, start

def main(arguments):
    for name in "abc":
        Path(name).write_text(name)
    return 0

cli.main = main
for write in (None, 2):
    folder = Path(sys.argv[1], str(write))
    folder.mkdir()
    process = start(["x"], folder, Strike(signal.SIGKILL, write=write))
    done = process.wait()
    print(done.code, process.writes, process.struck, *sorted(path.name for path in folder.iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["0 3 False a b c", "-9 2 True a"], done.stderr
