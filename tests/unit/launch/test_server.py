"""What a forked job must not do to the server and to the other jobs."""

import os
import subprocess
import sys
from pathlib import Path

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
