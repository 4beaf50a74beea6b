"""A disk that is full, a real one: what was there stays, it is said in a line, and goes on once there is space."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import headstart
from headstart.commands.cli import main
from headstart.errors import CacheError, RunError
from headstart.execution.train import Run
from headstart.store.store import Store

CHOICES = (
    "experiment=smoke",
    "backbone=small_cnn",
    "backbone.weights=none",
    "datamodule.image_size=32",
    "datamodule.num_workers=0",
    "trainer=cpu",
    "callbacks.plots=false",
)


class Disk:
    """A file system of its own size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._mount("size=16k")

    def resize(self, size: int) -> None:
        self._mount(f"remount,size={size}")

    def fill(self) -> None:
        """With something else, to the last byte."""
        for step in (1 << 16, 1):
            with suppress(OSError), (self.path / "ballast").open("ab", buffering=0) as file:
                while file.write(bytes(step)):
                    pass
        assert shutil.disk_usage(self.path).free == 0

    def free(self) -> None:
        (self.path / "ballast").unlink()

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a file system of a certain size")
    try:
        made = Disk(tmp_path / "disk")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    yield made
    subprocess.run(["umount", "--lazy", str(made.path)], check=True)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Run]:
    def run(*overrides: str, outputs: Path | str = "outputs", cache: Path | str = "cache") -> Run:
        places = (f"paths.output_dir={tmp_path / outputs}", f"paths.cache_dir={tmp_path / cache}")
        return headstart.train(*CHOICES, *places, *overrides)

    return run


def test_a_run_goes_on_from_its_last_epoch(disk: Disk, train: Callable[..., Run], capsys: pytest.CaptureFixture):
    choices = ("strategy=full", "trainer.max_epochs=3")
    whole = train(*choices)
    sizes = {path.name: path.stat().st_size for path in whole.path.rglob("*") if path.is_file()}
    # Whole pages of all that the run holds, and too few for a second last.ckpt beside the first.
    disk.resize(sum(-(-size // 4096) * 4096 for size in sizes.values()) + sizes["last.ckpt"] // 2)
    with pytest.raises(RunError, match=r"No space left on device.*the same command goes on from the last checkpoint"):
        train(*choices, outputs=disk.path)
    assert "Logging error" not in capsys.readouterr().err
    [run] = disk.path.glob("*/*/config.yaml")
    assert (run.parent / "checkpoints" / "last.ckpt").exists()
    assert not list(disk.path.rglob("*.tmp"))
    disk.resize(64 << 20)
    again = train(*choices, outputs=disk.path)
    assert again.metrics == whole.metrics


def test_a_run_that_cannot_even_begin_says_so(disk: Disk, train: Callable[..., Run]):
    disk.fill()
    with pytest.raises((RunError, OSError), match="No space left on device"):
        train("strategy=full", outputs=disk.path)
    disk.free()
    disk.resize(64 << 20)
    assert train("strategy=full", outputs=disk.path).result.status == "done"


def test_a_run_goes_on_without_the_store(disk: Disk, train: Callable[..., Run], tmp_path: Path):
    disk.fill()
    with pytest.raises(CacheError, match=r"no space left|do not fit"):
        train("strategy=freeze", "cache=require", cache=disk.path)
    result = train("strategy=freeze", cache=disk.path).result
    assert result.status == "done"
    assert not result.cache["used"]
    assert "space" in result.cache["reason"] or "fit" in result.cache["reason"]
    assert not list(disk.path.rglob("*.tmp"))
    assert Store(disk.path / "activations").entries() == []
    disk.free()
    disk.resize(64 << 20)
    assert train("strategy=freeze", "rerun=all", cache=disk.path).result.cache["used"]


def test_a_report_and_an_export_leave_what_is_there(
    disk: Disk, train: Callable[..., Run], capsys: pytest.CaptureFixture
):
    disk.resize(64 << 20)
    run = train("strategy=full", outputs=disk.path)
    study, exported = run.path.parent, run.path / "backbone"
    assert main(["report", str(study)]) == 0
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    disk.fill()
    capsys.readouterr()
    for command in (["report", str(study)], ["export", str(run.path), "--output", str(exported)]):
        assert main(command) == 1
        said = capsys.readouterr().err
        [line] = said.splitlines()
        assert line.startswith(f"error: {disk.path}")
        assert "no space left on device" in line
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before
    disk.free()
    assert main(["report", str(study)]) == 0
    assert main(["export", str(run.path), "--output", str(exported)]) == 0


@pytest.mark.slow
def test_a_sweep_is_finished_by_the_same_command(disk: Disk, tmp_path: Path, repository: Path):
    command = [sys.executable, str(repository / "train.py"), "-m", *CHOICES, "strategy=full", "seed=1,2"]
    command += [f"paths.output_dir={disk.path}", f"paths.cache_dir={tmp_path / 'cache'}", "name=study"]
    disk.resize(256 << 10)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 1
    assert "No space left on device" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    disk.resize(64 << 20)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(disk.path.glob("study/*/result.json"))) == 2
