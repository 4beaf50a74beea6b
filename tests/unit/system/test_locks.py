"""Locks between processes."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.system import locks
from headstart.system.locks import FileLock, holding, is_held


def test_one_writer_or_several_readers(tmp_path: Path):
    path = tmp_path / "below" / ".lock"
    with holding(path) as held:
        assert held
        assert is_held(path)
        assert not FileLock(path).acquire(wait=False)
        assert not FileLock(path).acquire(shared=True, wait=False)
    with holding(path, shared=True), holding(path, shared=True, wait=False) as second:
        assert second
        assert not is_held(path)
        assert not FileLock(path).acquire(wait=False)
    assert FileLock(path).acquire(wait=False)


def test_the_file_names_its_holder_while_it_is_held(tmp_path: Path):
    path = tmp_path / ".lock"
    path.write_text("the name of a process that was killed, which was much longer than the one that comes now")
    lock = FileLock(path)
    lock.acquire()
    assert FileLock(path).holder.startswith(f"process {os.getpid()} on ")
    lock.release()
    assert path.read_text() == ""
    assert lock.holder == "another process"


def test_a_link_is_not_written_through(tmp_path: Path):
    target = tmp_path / "thesis.tex"
    target.write_text("years of work")
    (tmp_path / ".lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(tmp_path / ".lock").acquire()
    assert not is_held(tmp_path / ".lock")
    assert target.read_text() == "years of work"


def test_a_file_system_without_locks_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class NoLocks:
        LOCK_SH, LOCK_EX, LOCK_NB = 1, 2, 4

        @staticmethod
        def flock(*_: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "fcntl", NoLocks)
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        with holding(tmp_path / ".lock", wait=False) as held:
            assert held
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: this file system has no locks ([Errno 37] No locks available); "
        "do not start the same run twice at a time"
    ]


def test_without_flock_everything_is_free(tmp_path: Path):
    """As on Windows."""
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from pathlib import Path\nfrom headstart.system.locks import FileLock, is_held\n"
        "one, other = FileLock(Path(sys.argv[1])), FileLock(Path(sys.argv[1]))\n"
        "print(one.acquire(), other.acquire(wait=False), is_held(one.path))\n"
        "import headstart.launch.search, headstart.runs.directory, headstart.system.network"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True True False\n"


def test_a_copy_in_a_forked_process_leaves_the_lock_alone(tmp_path: Path):
    path = tmp_path / ".lock"
    lock = FileLock(path)
    lock.acquire()
    if (child := os.fork()) == 0:
        lock.__del__()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_held(path)
    assert lock.holder.startswith("process ")
