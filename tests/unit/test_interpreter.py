"""Starting and ending a process."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.interpreter import collector_at_rest

ENDS = """
import atexit, sys, threading, time
from headstart.interpreter import leave

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


def test_the_collector_rests_and_passes_over_what_was_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = "import gc\nASLEEP = not gc.isenabled()\nKEPT = [[] for _ in range(50)]\n"
    (tmp_path / "imported_once.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with collector_at_rest():
            import imported_once
        frozen = gc.get_freeze_count()
        assert imported_once.ASLEEP
        assert gc.isenabled()
        assert frozen > 50
        with collector_at_rest():
            import imported_once
        assert gc.get_freeze_count() <= frozen
    finally:
        gc.unfreeze()
        sys.modules.pop("imported_once", None)
