"""What a forked job must not do to the server and to the other jobs."""

import os
import signal
import struct
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest

FORKS = """
import atexit, os, sys, tempfile
from headstart.system.interpreter import leave
from headstart.launch.server import keep_temporary_folders

shared = tempfile.TemporaryDirectory()
atexit.register(shared.cleanup)  # as wandb does
for job in range(2):
    pid = os.fork()
    if pid == 0:
        keep_temporary_folders()
        own = tempfile.TemporaryDirectory()
        print(os.path.isdir(shared.name), own.name, flush=True)
        leave(0)
    os.waitpid(pid, 0)
print(os.path.isdir(shared.name), shared.name)
"""


def test_a_jobs_end_removes_its_own_temporary_folders_only():
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True, env=os.environ)
    there, names = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert there == ("True", "True", "True")
    assert not any(Path(name).exists() for name in names)


def test_a_sweep_that_dies_in_the_middle_of_a_request_is_a_sweep_that_has_gone():
    ours, theirs = Pipe()
    with theirs:
        command = [sys.executable, "-m", "headstart.launch.server", str(theirs.fileno())]
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
    os.write(ours.fileno(), struct.pack("!i", 1000) + b"half of it")
    ours.close()
    said = server.communicate(timeout=60)[1]
    assert (server.returncode, said) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's signal on the death of a parent")
def test_a_sweep_that_is_killed_while_the_server_imports_leaves_none(tmp_path: Path):
    (tmp_path / "takes_long.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    sweep = (
        "import time; from headstart.launch.workers import Workers; Workers('takes_long:job').warm(); time.sleep(60)"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command, environment = [sys.executable, "-c", sweep], os.environ | {"PYTHONPATH": paths}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        server = int(running.stdout.readline())
        running.send_signal(signal.SIGKILL)
    waited = time.monotonic() + 50
    while alive(server) and time.monotonic() < waited:
        time.sleep(0.05)
    assert not alive(server)


def alive(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
