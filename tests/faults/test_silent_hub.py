"""A hub that accepts connections and never answers: a bounded wait, another source where there is one, and a line."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LIMIT_S = 300.0  # of a busy machine too; the hub's client alone waits longer


# A process of its own: what else the tests' process has done must not keep the hub from answering.
SERVER = """
import socket, sys, threading
answers_the_probe = sys.argv[1] == "True"
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
held = []

def answer(connection):
    if answers_the_probe and connection.recv(4096).startswith(b"HEAD / "):
        connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")

while True:
    held.append(server.accept()[0])
    threading.Thread(target=answer, args=held[-1:], daemon=True).start()
"""


@pytest.fixture
def hub() -> Iterator[Callable[..., str]]:
    """Starts a hub; one that ``answers_the_probe`` says that it is there, and is silent when it is asked for a file."""
    servers: list[subprocess.Popen[str]] = []

    def start(*, answers_the_probe: bool) -> str:
        command = [sys.executable, "-c", SERVER, str(answers_the_probe)]
        servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert servers[-1].stdout is not None
        return f"http://127.0.0.1:{int(servers[-1].stdout.readline())}"

    yield start
    for server in servers:
        server.kill()
        server.communicate()


def train(endpoint: str, folder: Path, repository: Path, *overrides: str) -> tuple[int, str, float]:
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hub")}
    # What "auto" became in an earlier run of the tests' process would stand for its children.
    environment = {
        name: value
        for name, value in environment.items()
        if not name.lower().endswith("_proxy") and not name.startswith("HEADSTART_AUTO_WEIGHTS_")
    }
    tiny = ("datamodule.shots=2", "datamodule.image_size=32", "datamodule.num_workers=0", "trainer=cpu")
    fixed = ("strategy=freeze", "trainer.max_epochs=1", "callbacks.plots=false", "paths.cache_dir=cache")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(repository / "train.py"), *tiny, *fixed, *overrides],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder,
        env=environment,
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


@pytest.mark.slow
def test_auto_takes_the_bundled_weights_and_says_so(hub: Callable[..., str], tmp_path: Path, repository: Path):
    code, out, seconds = train(hub(answers_the_probe=False), tmp_path, repository, "backbone=resnet18")
    assert code == 0, out
    assert "bundled:" in out
    assert seconds < LIMIT_S


def test_asking_for_the_hubs_weights_is_refused_in_one_line(hub: Callable[..., str], tmp_path: Path, repository: Path):
    choice = ("backbone=resnet18", "backbone.weights=hub")
    code, out, seconds = train(hub(answers_the_probe=False), tmp_path, repository, *choice)
    assert code == 1
    [line] = out.strip().splitlines()
    assert line.startswith("error: backbone.weights=hub: resnet18")
    assert "the hub cannot be reached" in line
    assert seconds < LIMIT_S


@pytest.mark.slow
def test_a_hub_that_falls_silent_after_the_probe_is_given_up(hub: Callable[..., str], tmp_path: Path, repository: Path):
    code, out, seconds = train(hub(answers_the_probe=True), tmp_path, repository, "backbone=resnet18")
    print(out, seconds)
    assert code == 1
    assert "Traceback" not in out
    [line] = [line for line in out.splitlines() if line.startswith("error: ")]
    assert "could not be downloaded" in line
    assert "backbone.weights=bundled" in line
    assert seconds < LIMIT_S
