"""Starting and ending a process."""

import ctypes
import gc
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from headstart.system.interpreter import collector_at_rest, keep_freed_memory, terminable

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


ASKED = """
import sys
from headstart.system.interpreter import whole_process

class Extension:  # such as complain of what was not collected when the interpreter is taken apart
    def __del__(self):
        print("leaked", file=sys.stderr)

def command():
    sys.exit({code})

sys.modules["asked"], kept = sys.modules["__main__"], Extension()
whole_process("asked:command")
"""


@pytest.mark.parametrize(("code", "expected", "said"), [("0", 0, ""), ("", 0, ""), ("2", 2, ""), ("'no'", 1, "no\n")])
def test_a_command_that_asks_for_the_exit_ends_like_any_other(code, expected, said):
    done = subprocess.run([sys.executable, "-c", ASKED.format(code=code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (expected, said)


FINALISED = """
import os, signal, sys, time
from headstart.system.interpreter import interrupt, whole_process

class Held:  # a lock, a file or a folder that is given back when it is dropped
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.1)

def command():
    signal.signal(signal.SIGTERM, interrupt)
    Held()
    time.sleep(60)
    print("went on")
    return 0

sys.modules["asked"] = sys.modules["__main__"]
whole_process("asked:command")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_while_an_object_is_finalised_is_heard(name: str):
    done = subprocess.run(
        [sys.executable, "-c", FINALISED.format(name=name)], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")


SLOW = """
import threading, time
start = threading.Thread.start
threading.Thread.start = lambda thread: (start(thread), time.sleep(0.2))
"""


def test_an_interruption_is_not_said_again_while_what_would_drop_it_is_busy():
    script = SLOW + FINALISED.format(name="SIGINT")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")


def test_other_errors_while_an_object_is_finalised_are_told():
    script = (
        FINALISED.format(name="SIGINT")
        .replace("os.kill(os.getpid(), signal.SIGINT)", "print(1 / 0)")
        .replace("60", "0")
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "ZeroDivisionError" in done.stderr


IMPORTED = "import gc\nASLEEP = not gc.isenabled()\nKEPT = [[] for _ in range(50)]\n"

WHOLE = """
import ctypes
import gc
from headstart.system.interpreter import collector_at_rest, whole_process

def command():
    before = gc.get_freeze_count()
    with collector_at_rest():
        import imported_once
    print(imported_once.ASLEEP, gc.isenabled(), gc.get_freeze_count() - before > 50)
    raise RuntimeError("the command's own error")

if __name__ == "__main__":
    whole_process("whole:command")
"""


def test_a_whole_process_never_looks_through_what_it_imported(tmp_path: Path):
    (tmp_path / "imported_once.py").write_text(IMPORTED)
    (tmp_path / "whole.py").write_text(WHOLE)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, str(tmp_path / "whole.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
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


TERMINATED = """
import ctypes, os, signal, sys, threading, time
from headstart.system import interpreter

def sleeps():
    interpreter.DEAF_S = 100
    threading.Timer(0.5, print, ["ready"], {{"flush": True}}).start()  # when the wait has begun
    time.sleep(200)

def waits_in_a_library():  # as a rank for others that do not come; no signal ends that
    interpreter.DEAF_S = 0.5
    ctypes.CDLL(None).system(b"echo ready; exec cat > /dev/null 2>&1")

try:
    with interpreter.terminable():
        {wait}()
except KeyboardInterrupt:
    print("unwound")
    sys.exit(interpreter.INTERRUPTED)
"""


@pytest.mark.parametrize(("wait", "said"), [("sleeps", "unwound\n"), ("waits_in_a_library", "terminated\n")])
def test_being_terminated_ends_a_wait_of_any_kind(wait: str, said: str):
    command = [sys.executable, "-c", TERMINATED.format(wait=wait)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **pipes) as process:  # the shell goes when its input is closed
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        process.wait(timeout=60)
        assert (process.returncode, process.stdout.read().lstrip()) == (130, said)


def test_a_worker_that_is_terminated_does_not_end_the_process_that_forked_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headstart.system.interpreter.DEAF_S", 0.2)
    with terminable():
        listens, says = os.pipe()
        worker = os.fork()
        if worker == 0:
            signal.signal(signal.SIGTERM, lambda number, frame: os._exit(7))
            os.write(says, b"x")
            for _ in range(600):
                time.sleep(0.1)
            os._exit(1)
        os.read(listens, 1)
        os.close(listens)
        os.close(says)
        os.kill(worker, signal.SIGTERM)
        _, status = os.waitpid(worker, 0)
        time.sleep(0.5)  # long enough to be taken for deaf
    assert os.waitstatus_to_exitcode(status) == 7


def test_outside_the_block_everything_is_as_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with terminable(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(("variables", "kept"), [({}, True), ({"MALLOC_ARENA_MAX": "2"}, False)])
def test_memory_of_what_is_gone_is_kept_for_the_next_unless_somebody_chose(variables: dict[str, str], kept: bool):
    code = (
        "import numpy as np\nfrom headstart.system.interpreter import keep_freed_memory\n"
        "def pages(): return int(open('/proc/self/statm').read().split()[1])\n"
        "keep_freed_memory()\nbefore = pages()\nblock = np.ones(16 << 20)\ndel block\nprint(pages() - before)"
    )
    given = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=given | variables, check=True
    )
    assert (int(done.stdout) * os.sysconf("SC_PAGE_SIZE") > 100 << 20) is kept


@pytest.mark.parametrize(("largest", "asked"), [(1 << 30, [-3, -1]), (32 << 20, [-3, -3, -1]), (0, [-3, -3])])
def test_of_an_older_library_no_more_is_asked_than_it_takes(
    largest: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
):
    calls: list[int] = []

    def mallopt(name: int, value: int) -> int:
        calls.append(name)
        return int(name == -1 or value <= largest)

    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert calls == asked
