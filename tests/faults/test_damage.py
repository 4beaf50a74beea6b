"""One wrong bit in a file of a run is noticed before it counts, and what the machine did to a run can be undone."""

import errno
import gc
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

import headstart
from headstart.commands.arguments import check_output_place
from headstart.commands.export import main as export
from headstart.commands.predict import main as predict
from headstart.errors import CacheError, ConfigError, RunError
from headstart.execution.load import find_device
from headstart.execution.train import Run, of_environment
from headstart.model.transfer_model import TransferModel
from headstart.runs.directory import RunDirectory, find_runs
from headstart.runs.reader import RunRecord, read_run
from headstart.runs.result import read_result
from headstart.store.building import ShardWriter, space_for
from headstart.training.checkpoints import AtomicCheckpointIO

CHOICES = (
    "experiment=smoke",
    "backbone.weights=none",
    "datamodule.image_size=32",
    "datamodule.shots=2",
    "datamodule.num_workers=0",
    "trainer.accelerator=cpu",
    "callbacks.plots=false",
)


@pytest.fixture
def train(tmp_path: Path):
    def run(*choices: str) -> Run:
        return headstart.train(*CHOICES, *choices, f"paths.output_dir={tmp_path / 'outputs'}")

    return run


def flip(path: Path, *, at: float = 0.6) -> None:
    """Change one bit, in another inode as a bad copy has it."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0x40
    path.unlink()
    path.write_bytes(content)


def lose_result(run: Run) -> None:
    """As after a kill between the last epoch and the end."""
    (run.path / "result.json").unlink()


def test_a_bit_of_the_best_checkpoint_changes_no_prediction(train):
    run = train()
    flip(run.path / "checkpoints" / "best.ckpt", at=0.4)
    with pytest.raises(RunError, match=r"best.ckpt cannot be read .* start the run again"):
        run.load()


def test_a_digit_of_a_finished_run_counts_nowhere_once_it_is_another(train):
    run = train()
    whole = {
        name: (run.path / name).read_text() for name in ("result.json", "config.yaml", "metrics.csv", "audit.json")
    }

    def change(name: str, given: str, other: str) -> RunRecord:
        for path, text in whole.items():
            (run.path / path).write_text(text)
        assert given in whole[name]
        (run.path / name).write_text(whole[name].replace(given, other, 1))
        return read_run(run.path)

    metric = f'"val/acc": {run.metrics["val/acc"]}'
    assert change("result.json", metric, metric).metrics == run.metrics
    found = change("result.json", metric, '"val/acc": 0.875')
    assert (found.status, "digest is not the recorded one" in found.reason) == ("unreadable", True)
    with pytest.raises(RunError, match=r"result\.json is damaged"):
        train()
    assert change("config.yaml", "seed: 1", "seed: 2").composed == {}
    with pytest.raises(RunError, match=r"config\.yaml is missing or not as the run wrote it"):
        run.load()
    assert change("metrics.csv", "0.", "1.").history == []
    assert change("audit.json", '"drift_relative": ', '"drift_relative": 1').drift == []


def test_a_result_of_an_earlier_version_has_no_digests_and_is_read(train):
    run = train()
    values = json.loads((run.path / "result.json").read_text())
    (run.path / "result.json").write_text(json.dumps({**values, "digest": None, "files": {}}))
    assert read_run(run.path).metrics == run.metrics


@pytest.mark.parametrize("harm", ["last", "best", "no best"])
def test_damaged_checkpoints_are_nothing_to_go_on_from(train, harm: str, capsys: pytest.CaptureFixture[str]):
    run = train()
    lose_result(run)
    path = run.path / "checkpoints" / f"{harm.split()[-1]}.ckpt"
    path.unlink() if harm == "no best" else flip(path, at=0.4)
    again = train()
    printed = " ".join(capsys.readouterr().out.split())
    assert "training starts anew" in printed
    assert f"{path.name} {'does not exist' if harm == 'no best' else 'cannot be read'}" in printed
    assert again.metrics == run.metrics


def test_whole_checkpoints_are_gone_on_from(train, capsys: pytest.CaptureFixture[str]):
    run = train()
    lose_result(run)
    assert train().metrics == run.metrics
    assert "anew" not in capsys.readouterr().out


def test_a_damaged_run_is_not_extended(train):
    run = train()
    flip(run.path / "checkpoints" / "last.ckpt", at=0.4)
    with pytest.raises(RunError, match=r"extend=true: .*last.ckpt cannot be read"):
        train("extend=true", "trainer.max_epochs=3")


@pytest.mark.parametrize("harm", ["flip", pytest.param("cut", marks=pytest.mark.slow)])
def test_a_damaged_shared_file_is_written_again(train, harm: str):
    first = train()
    (shared,) = (first.path.parent / ".frozen").iterdir()
    whole = shared.read_bytes()
    if harm == "flip":
        flip(shared)
    else:
        shared.unlink()
        shared.write_bytes(whole[: len(whole) // 2])
    second = train("optimizer.lr=0.02")
    assert shared.read_bytes() == whole
    second.load()
    (own,) = (first.path / "checkpoints").glob("frozen-*")
    flip(own)
    first.load()  # from the study's


def test_a_bit_of_the_final_weights_is_noticed(train, tmp_path: Path):
    from headstart.execution.load import load
    from headstart.training.checkpoints import load_final, save_final

    model = load(train().path).network
    save_final(model, tmp_path / "final")
    assert load_final(model, tmp_path / "final")
    flip(tmp_path / "final" / "final.safetensors")
    with pytest.raises(RunError, match=r"final\.safetensors is damaged"):
        load_final(model, tmp_path / "final")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
    ids=["full", "read-only", "memory", "allocator", "cuda"],
)
@pytest.mark.slow
def test_what_the_machine_did_leaves_a_run_that_goes_on(train, error: Exception, monkeypatch: pytest.MonkeyPatch):
    whole = train("trainer.max_epochs=3")
    shutil.rmtree(whole.path.parent)
    save, epochs, broken = AtomicCheckpointIO.save_checkpoint, [], [True]

    def write(self: AtomicCheckpointIO, checkpoint: dict, path: str, storage_options: object = None) -> None:
        epochs.append(checkpoint["epoch"])
        if checkpoint["epoch"] == 2 and broken:
            raise error
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", write)
    with pytest.raises(RunError, match="the same command goes on from the last checkpoint"):
        train("trainer.max_epochs=3")
    (path,) = find_runs(whole.path.parent)
    assert read_result(path).details["resumable"]
    epochs.clear()
    broken.clear()
    again = train("trainer.max_epochs=3")
    assert set(epochs) == {2}
    assert again.metrics == whole.metrics


def test_a_checkpoint_needs_no_other_disk_than_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lightning's own writer goes through the folder for temporary files, which may be small."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.ones(1000)}}, path)
    assert torch.equal(torch.load(path, weights_only=True)["state_dict"]["a"], torch.ones(1000))
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_lets_go_of_the_model_of_the_one_before(train):
    """Or a process that trains thirty of them holds thirty."""

    def models() -> int:
        return sum(type(thing) is TransferModel for thing in gc.get_objects())

    gc.collect()
    before = models()
    gc.disable()
    try:
        for seed in (1, 2, 3):
            train(f"seed={seed}")
        assert models() <= before + 1
    finally:
        gc.enable()


def test_an_error_of_the_run_is_not_the_machines():
    assert of_environment(ValueError("x")) is None
    assert of_environment(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))) is None
    chained = RuntimeError("could not write")
    chained.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert of_environment(chained) is chained.__cause__


def test_a_cache_that_cannot_be_written_to_is_done_without(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stored = train("cache=auto", f"paths.cache_dir={tmp_path / 'cache'}")
    assert stored.result.cache["used"]
    shutil.rmtree(stored.path)

    def full(self: ShardWriter) -> None:
        self._file.close()
        with space_for(self.folder):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "finish", full)
    run = train("cache=auto", f"paths.cache_dir={tmp_path / 'full'}")
    assert not run.result.cache["used"]
    assert "no space left" in run.result.cache["reason"]
    assert "nothing is stored of" in (run.path / "log.txt").read_text()
    with pytest.raises(CacheError, match="cache=require, but no space left"):
        train("cache=require", f"paths.cache_dir={tmp_path / 'full'}", "optimizer.lr=0.5")


def test_a_store_that_is_a_file_is_done_without(train, tmp_path: Path):
    """A cache folder that is a file itself is a choice of the user's, and refused before anything starts."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "activations").write_text("x")
    assert not train("cache=auto", f"paths.cache_dir={cache}").result.cache["used"]
    with pytest.raises(ConfigError, match="is no folder; give another"):
        train("cache=auto", f"paths.cache_dir={cache / 'activations'}", "seed=2")


def test_what_cannot_be_written_to_is_said_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(RunError, match=r"paths.output_dir=.* cannot be written to"):
        RunDirectory.open(file, "study", "key", "0123456789")
    with pytest.raises(SystemExit):
        predict([str(tmp_path), str(file), "--output", str(tmp_path)])
    assert "is a folder; give a file" in capsys.readouterr().err
    for option, place in (("--output", file / "new.csv"), ("--masks", file), ("--explain", file / "new")):
        with pytest.raises(ConfigError, match=f"{option}={place}.* give a(nother place| folder)"):
            predict([str(tmp_path), str(file), option, str(place)])
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        export([str(tmp_path), "--output", str(file)])
    with pytest.raises(RunError, match="device=nothing: there is no such device"):
        find_device("nothing")
    assert find_device("cpu").type == "cpu"


@pytest.mark.parametrize("folder", [False, True])
def test_an_output_is_looked_at_before_the_work(folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "file"
    file.write_text("x")
    check_output_place(tmp_path / "new" / "place", folder=folder)
    check_output_place(tmp_path if folder else file, folder=folder)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match="is a file; give a folder" if folder else "is a folder; give a file in it"):
        check_output_place(file if folder else tmp_path, folder=folder)
    with pytest.raises(ConfigError, match=r"/file is no folder; give another place"):
        check_output_place(file / "new" / "place", folder=folder)
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # nothing is forbidden to root
    with pytest.raises(ConfigError, match="cannot be written to; give another place"):
        check_output_place(tmp_path / "new" / "place", folder=folder)
