"""What a process of a distributed run does when another one ends too early."""

import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from headstart.errors import DivergedError
from headstart.execution import peers
from headstart.execution.peers import FOLLOWED, WatchfulLauncher, among_peers, watch_peers
from headstart.execution.train import of_environment
from headstart.runs.ranks import LostRankError

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:32768"
KILLED = "process 2 of this run was killed (SIGKILL: by somebody, or by the system for want of memory)"


def trainer(*codes: int | None, rank: int = 0) -> Any:
    """A trainer that started processes which ended so; None: they still run."""
    launcher: Any = WatchfulLauncher(_SubprocessScriptLauncher(LightningEnvironment(), len(codes) + 1, 1))
    kept: list[int] = []
    launcher.procs = [SimpleNamespace(poll=lambda code=code: code, send_signal=kept.append, pid=1) for code in codes]
    strategy = SimpleNamespace(launcher=launcher if codes else None)
    return SimpleNamespace(strategy=strategy, local_rank=rank, global_rank=rank, killed=kept)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "NOTICE_S", 0.05)
    monkeypatch.setattr(peers, "_POLL_S", 0.01)


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ((None, -9), KILLED),
        ((1, -9), KILLED),
        ((FOLLOWED, -11), "process 2 of this run was ended by signal 11 (Segmentation fault)"),
        ((3, None), "process 1 of this run ended with exit code 3; what it said stands above"),
        ((130, FOLLOWED), "process 1 of this run was interrupted"),
        ((0, FOLLOWED), "another process of this run has ended, or process 0 cannot reach it any more"),
    ],
)
def test_the_first_process_says_which_one_is_gone_and_ends_the_others(codes: tuple[int | None, ...], said: str):
    given = trainer(*codes)
    with pytest.raises(LostRankError) as raised, among_peers(given):
        raise RuntimeError(GLOO)
    assert str(raised.value) == said
    assert given.killed == [signal.SIGKILL] * len(codes)
    assert of_environment(raised.value) is raised.value  # its run can be resumed


def test_an_error_of_its_own_stays_one_and_is_the_only_one_that_is_told():
    given = trainer(None)
    with pytest.raises(DivergedError), among_peers(given):
        raise DivergedError("the loss is NaN")
    assert given.killed == [signal.SIGKILL]


def test_one_that_was_started_leaves_the_words_to_the_one_that_started_it(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit) as asked, among_peers(trainer(rank=1)):
        raise RuntimeError(GLOO)
    assert asked.value.code == FOLLOWED
    monkeypatch.setattr(peers, "_PARENT", -1)  # which is gone
    with pytest.raises(LostRankError, match="process 0 of this run has ended"), among_peers(trainer(rank=1)):
        raise RuntimeError(GLOO)


def test_only_processes_that_a_trainer_starts_are_watched():
    one = SimpleNamespace(strategy=SimpleNamespace(launcher=None))
    watch_peers(one)
    assert one.strategy.launcher is None
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), 2, 1)
    two = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
    watch_peers(two)
    assert isinstance(two.strategy._launcher, WatchfulLauncher)
    assert two.strategy._launcher.num_processes == 2


DEAF = """
import os, subprocess, sys, time
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from headstart.execution import peers
peers.NOTICE_S = 0.3
launcher = peers.WatchfulLauncher(_SubprocessScriptLauncher(LightningEnvironment(), 2, 1))
launcher._call_children_scripts = lambda: launcher.procs.append(subprocess.Popen([sys.executable, "-c", "exit(3)"]))
def wait():
    time.sleep(1)
    print("apart", flush=True)
    launcher.apart.clear()
    time.sleep(60)
launcher.launch(wait)
"""


@pytest.mark.slow
def test_one_that_waits_where_it_hears_nothing_is_ended_and_only_while_it_waits():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, timeout=60)
    assert time.monotonic() - began < 50
    assert done.returncode == 1
    assert done.stdout == "apart\n"
    assert done.stderr.strip() == (
        "error: process 1 of this run ended with exit code 3; what it said stands above; the same command goes on with "
        "the run"
    )
