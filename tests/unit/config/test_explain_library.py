"""Errors of the system and of other libraries become one line."""

import errno
import os
from pathlib import Path

import pytest
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from wandb.errors import UsageError

from headstart.commands.cli import train_main
from headstart.config.explain_library import explain_library


def test_an_error_of_the_system_says_where_what_and_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        (tmp_path / "file" / "folder").mkdir()
    assert explain_library(caught.value) == (
        f"{tmp_path}/file/folder: not a directory; a part of it is a file; give a folder"
    )
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/last.ckpt")
    assert explain_library(full) == ("/x/last.ckpt: no space left on device; free some space, or give another folder")
    gone = OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/proc/x")  # where nobody can make anything
    assert (explain_library(gone) or "").startswith("/proc/x: no such file or directory; nothing is there, and nothing")
    long = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x" * 5000)
    assert len(explain_library(long) or "") < 250


def test_errors_of_libraries_are_one_line() -> None:
    assert explain_library(MisconfigurationException("no\n  such")) == "Lightning cannot train so: no such"
    line = explain_library(UsageError("Invalid project name"))
    assert line == "Weights & Biases cannot start (logger.wandb.mode=offline needs no account): Invalid project name"


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("val/acc"), OSError("x"), RuntimeError("x")])
def test_what_nobody_could_foresee_keeps_its_traceback(error: Exception) -> None:
    assert explain_library(error) is None


def test_the_command_prints_the_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(config: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/config.yaml")

    monkeypatch.setattr("headstart.config.resolve.resolve_run", full)
    assert train_main([]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "error: /x/config.yaml: no space left on device; free some space" in err
