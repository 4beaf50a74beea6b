import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart.errors import RunError
from headstart.runs.directory import RunDirectory, find_runs
from headstart.runs.result import Cost, failed_result, write_result

FINGERPRINT = "0123456789abcdef"


def open_run(parent: Path, **choices) -> RunDirectory:
    values = {"study": "study", "key": "resnet18-freeze", "fingerprint": FINGERPRINT} | choices
    return RunDirectory.open(parent, **values)


def give_checkpoint(run: RunDirectory) -> None:
    run.checkpoints.mkdir(exist_ok=True)
    run.last_checkpoint.write_bytes(b"weights")


def test_a_directory_is_named_by_what_ran(tmp_path: Path):
    run = open_run(tmp_path)
    assert run.path == tmp_path / "study" / "resnet18-freeze-01234567"
    assert open_run(tmp_path).path == run.path


def test_states_and_what_asking_again_means(tmp_path: Path, finished):
    run = open_run(tmp_path)
    assert (run.state, run.action) == ("new", "train")
    give_checkpoint(run)
    assert (run.state, run.action) == ("partial", "resume")
    write_result(run.path, failed_result(ValueError("x"), fingerprint=FINGERPRINT))
    assert (run.state, run.action) == ("failed", "train")
    assert open_run(tmp_path, rerun="none").action == "return"
    write_result(run.path, finished(fingerprint=FINGERPRINT))
    assert (run.state, run.action) == ("done", "return")
    assert open_run(tmp_path, rerun="all").action == "train"
    assert run.result().metrics["val/acc"] == 0.5


def test_clearing_leaves_a_new_run_and_holds_the_lock(tmp_path: Path):
    run = open_run(tmp_path)
    give_checkpoint(run)
    run.attempt().record(fit_seconds=3.0)
    run.log_file.write_text("x")
    write_result(run.path, failed_result(ValueError("x"), fingerprint=FINGERPRINT))
    with run.lock():
        run.clear()
        assert run.in_use
        assert [entry.name for entry in run.path.iterdir()] == [".lock"]
    assert run.state == "new"
    assert run.attempt().earlier == Cost()


def test_training_on_from_a_shorter_run_takes_its_checkpoint_and_its_cost_along(tmp_path: Path):
    short, long = open_run(tmp_path), open_run(tmp_path, fingerprint="fedcba9876543210")
    with pytest.raises(RunError, match=r"no last\.ckpt"):
        long.continue_from(short)
    give_checkpoint(short)
    short.best_checkpoint.write_bytes(b"best")
    short.metrics_file.write_text("epoch\n0\n")
    short.attempt().record(fit_seconds=4.0)
    long.continue_from(short)
    assert (long.state, long.action) == ("partial", "resume")
    assert long.attempt().total.fit_seconds == 4.0
    assert long.metrics_file.read_text() == "epoch\n0\n"
    long.last_checkpoint.write_bytes(b"later")
    assert short.last_checkpoint.read_bytes() == b"weights"


def test_the_cost_of_interrupted_attempts_is_kept(tmp_path: Path):
    first = open_run(tmp_path).attempt()
    first.record(fit_seconds=1.0, images_seen=10, device="cpu")
    first.record(fit_seconds=2.0, images_seen=20, peak_memory_bytes=9)
    second = open_run(tmp_path).attempt()
    assert second.earlier == Cost(fit_seconds=2.0, total_seconds=2.0, images_seen=20, peak_memory_bytes=9, device="cpu")
    second.record(fit_seconds=5.0, total_seconds=6.0, ended=True)
    third = open_run(tmp_path).attempt()
    assert third.total == Cost(fit_seconds=7.0, total_seconds=8.0, images_seen=20, peak_memory_bytes=9, device="cpu")
    assert open_run(tmp_path).cost() == third.total
    assert [attempt["ended"] for attempt in open_run(tmp_path).attempts()] == [False, True, False]


def test_two_fingerprints_with_one_name_are_told_apart(tmp_path: Path):
    open_run(tmp_path).attempt()
    with pytest.raises(RunError, match="other choices"):
        open_run(tmp_path, fingerprint="01234567-other")


def test_a_damaged_result_is_an_error_and_not_a_fresh_start(tmp_path: Path):
    run = open_run(tmp_path)
    (run.path / "result.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        open_run(tmp_path)
    assert (run.path / "result.json").exists()


def test_a_moved_directory_means_the_same(tmp_path: Path):
    run = open_run(tmp_path / "here")
    give_checkpoint(run)
    run.attempt().record(fit_seconds=4.0)
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = open_run(tmp_path / "there")
    assert moved.state == "partial"
    assert moved.attempt().earlier.fit_seconds == 4.0
    assert str(tmp_path) not in (moved.path / "attempts.json").read_text()


def test_a_new_attempt_sweeps_what_killed_ones_left_half_written(tmp_path: Path):
    run = open_run(tmp_path)
    give_checkpoint(run)
    left = [run.path / ".result.json.0123abcd.tmp", run.checkpoints / ".last.ckpt.0123abcd.tmp"]
    for path in left:
        path.write_text("half")
    longer = open_run(tmp_path, fingerprint="fedcba9876543210")
    longer.continue_from(run)
    assert [path.name for path in longer.checkpoints.iterdir()] == ["last.ckpt"]
    run.attempt()
    assert not any(path.exists() for path in left)
    assert run.state == "partial"


HOLD = """
import sys, time
from headstart.runs.directory import RunDirectory
run = RunDirectory.open(sys.argv[1], "study", "resnet18-freeze", "0123456789abcdef")
with run.lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path: Path, holder: subprocess.Popen):
    run = open_run(tmp_path)
    assert run.in_use
    with pytest.raises(RunError, match=f"in use by process {holder.pid} on "), run.lock(wait=False):
        pass
    with run.lock(owner=False):
        assert run.in_use
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with run.lock(wait=False):
        assert str(os.getpid()) in (run.path / ".lock").read_text()
    assert not run.in_use


def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path):
    run, target = open_run(tmp_path), tmp_path / "thesis.tex"
    target.write_text("years of work")
    (run.path / ".lock").symlink_to(target)
    with pytest.raises(RunError, match="cannot be locked"), run.lock():
        pass
    assert target.read_text() == "years of work"


def test_a_waiting_process_goes_on_when_the_lock_is_free(tmp_path: Path, holder: subprocess.Popen):
    waiting = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.3)
        assert waiting.poll() is None
        holder.kill()
        assert waiting.stdout.readline() == "held\n"
    finally:
        waiting.kill()
        waiting.wait()
        waiting.stdout.close()


def test_runs_are_found_below_a_folder_and_not_inside_each_other(tmp_path: Path, finished):
    first = open_run(tmp_path)
    first.attempt()
    second = open_run(tmp_path, study="other", fingerprint="fedcba9876543210")
    write_result(second.path, finished())
    nested = first.path / "teacher"
    nested.mkdir()
    (nested / "result.json").write_text(json.dumps({}))
    (tmp_path / "study" / "notes").mkdir()
    assert find_runs(tmp_path) == sorted([first.path, second.path])
    assert find_runs(first.path) == [first.path]
    assert find_runs(tmp_path / "absent") == []
