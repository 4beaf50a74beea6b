"""Starting and ending a process."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.system.interpreter import collector_at_rest

ENDS = """
import atexit, sys, threading, time
from headstart.system.interpreter import leave

def finish():
    time.sleep(0.2)
    print("thread")

atexit.register(lambda: print("atexit"))
{more}
threading.Thread(target=finish).start()
leave({code})
"""


def end(code: int, more: str = "") -> subprocess.CompletedProcess:
    script = ENDS.format(code=code, more=more)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_ends_with_its_code_its_threads_and_all_that_was_registered(code):
    done = end(code)
    assert (done.returncode, done.stdout.split(), done.stderr) == (code, ["thread", "atexit"], "")


def test_output_that_cannot_be_written_is_no_success():
    done = end(0, more="sys.stdout = open('/dev/full', 'w')")
    assert done.returncode == 1
    assert "No space left" in done.stderr


IMPORTED = "import gc\nASLEEP = not gc.isenabled()\nKEPT = [[] for _ in range(50)]\n"

WHOLE = """
import gc
from headstart.system.interpreter import collector_at_rest, whole_process

def command():
    before = gc.get_freeze_count()
    with collector_at_rest():
        import imported_once
    print(imported_once.ASLEEP, gc.isenabled(), gc.get_freeze_count() - before > 50)
    raise RuntimeError("the command's own error")

whole_process(command)
"""


def test_a_whole_process_never_looks_through_what_it_imported(tmp_path: Path):
    (tmp_path / "imported_once.py").write_text(IMPORTED)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", WHOLE], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.split() == ["True"] * 3
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: the command's own error\n")


def test_in_a_process_of_somebody_else_imports_stay_collectable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "imported_once.py").write_text(IMPORTED)
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    with collector_at_rest():
        import imported_once
    sys.modules.pop("imported_once")
    assert imported_once.ASLEEP
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_ctrl_c_during_the_imports_is_one_line():
    code = "from headstart.system.interpreter import whole_process\n"
    code += "def command(): raise KeyboardInterrupt\nwhole_process(command)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.split()) == (130, ["interrupted"])
