"""Everything a run and its report write has the rights that the user gives new files."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.skipif(os.name != "posix", reason="there are no such rights")
def test_a_run_and_a_report_respect_the_umask(train: Callable, tmp_path: Path):
    from headstart.study.report import write_report

    before = os.umask(0o027)
    try:
        trained = train("strategy=freeze", f"paths.cache_dir={tmp_path / 'cache'}", "callbacks.plots=true")
        write_report(trained.run.path.parent)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in tmp_path.rglob("*") if not path.is_symlink()}
    folders = {mode for path, mode in modes.items() if path.is_dir()}
    files = {path.name: oct(mode) for path, mode in modes.items() if path.is_file() and mode != 0o640}
    assert len(modes) > 20
    assert folders == {0o750}
    assert files == {}
