"""Several processes on one store: nothing lost, nothing made twice, no wrong row."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from headstart.commands.cache import main as cache
from headstart.store.store import Store

KEYS = tuple(f"{number:040x}" for number in range(1, 9))

#: Opens or makes every entry a few times, and as long as a file is there, in an order of its own; checks each row.
PROCESS = """
import random, sys, time
from pathlib import Path
import numpy as np
from headstart.store.building import ShardWriter
from headstart.store.store import Store

root, keys, rounds, order, pause = sys.argv[1:]
keys, rounds, pause = keys.split(","), int(rounds), float(pause)
store = Store(root)
log = open(Path(root).parent / "log", "a", buffering=1)
chance = random.Random(order)
more = Path(root).parent / "more"
while more.exists() or rounds > 0:
    rounds -= 1
    for key in chance.sample(keys, len(keys)):
        expected = np.random.default_rng(int(key, 16)).random((64, 8))
        entry = store.open(key)
        while entry is None:
            with store.building(key) as build:
                if build is not None:
                    log.write(f"begin {key}\\n")
                    with ShardWriter(build.folder, shard_bytes=1024) as writer:
                        for rows in np.array_split(expected, 8):
                            writer.append(rows)
                            time.sleep(pause)
                    build.finish({}, rows=64)
                    log.write(f"made {key}\\n")
            entry = store.open(key)
        places = chance.sample(range(64), 64)
        np.testing.assert_array_equal(entry.rows(np.array(places)), expected[places])
        entry.close()
"""


def start(root: Path, order: int, *, keys: tuple[str, ...] = KEYS, rounds: int = 1, pause: float = 0.0):
    choices = [str(root), ",".join(keys), str(rounds), str(order), str(pause)]
    return subprocess.Popen([sys.executable, "-c", PROCESS, *choices], stderr=subprocess.PIPE, text=True)


def finish(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said


def made(root: Path) -> Counter[str]:
    log = root.parent / "log"
    lines = [line.split() for line in (log.read_text().splitlines() if log.exists() else ())]
    return Counter(key for what, key in lines if what == "made")


def test_four_processes_make_each_entry_once(tmp_path: Path):
    root = tmp_path / "activations"
    finish([start(root, order, pause=0.005) for order in range(4)])
    assert made(root) == Counter(KEYS)
    assert Store(root).entries() == sorted(KEYS)
    assert not list(root.glob(".*.tmp"))


def test_what_a_killed_process_was_making_is_made_once_by_another(tmp_path: Path):
    root = tmp_path / "activations"
    first = start(root, 0, keys=KEYS[:1], pause=60)
    while not (tmp_path / "log").exists() or "begin" not in (tmp_path / "log").read_text():
        assert first.poll() is None
        time.sleep(0.05)
    others = [start(root, order, pause=0.005) for order in range(1, 4)]
    time.sleep(1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finish(others)
    assert made(root) == Counter(KEYS)
    assert not list(root.glob(".*.tmp"))


def test_entries_that_are_removed_meanwhile_are_made_again_and_never_wrong(tmp_path: Path, capsys):
    root = tmp_path / "activations"
    more, said, limit = tmp_path / "more", "", time.monotonic() + 120
    more.touch()
    processes = [start(root, order, rounds=20) for order in range(4)]
    while any(process.poll() is None for process in processes):
        assert cache(["--cache-dir", str(tmp_path), "rm", "--all"]) in (0, 1)
        time.sleep(0.01)
        said += capsys.readouterr().out
        enough = "removed" in said and sum(made(root).values()) > len(KEYS)
        if enough or time.monotonic() > limit:
            more.unlink(missing_ok=True)
    finish(processes)
    assert "removed" in said
    assert sum(made(root).values()) > len(KEYS)  # some were removed and made again
    assert set(made(root)) == set(KEYS)
    store = Store(root)
    store.clean()
    assert not list(root.glob(".*.tmp"))
    assert all(store.verify(key) is None for key in store.entries())


@pytest.mark.slow
def test_four_trainings_store_what_they_share_once(tmp_path: Path, repository: Path):
    fixed = ["backbone=small_cnn", "backbone.weights=none", "datamodule.shots=2", "datamodule.image_size=32"]
    fixed += ["datamodule.num_workers=0", "trainer=cpu", "trainer.max_epochs=2", "callbacks.plots=false"]
    fixed += ["strategy=freeze", "trainer.precision=32-true"]
    rates = (0.01, 0.02, 0.03, 0.04)

    def train(rate: float, cache: str) -> subprocess.Popen:
        places = [f"paths.cache_dir={cache}", f"name={cache}", f"optimizer.lr={rate}"]
        command = [sys.executable, str(repository / "train.py"), *fixed, *places]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment)

    finish([train(rate, "shared") for rate in rates])
    finish([train(rates[0], "alone")])
    results = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/shared/*/result.json")]
    built = Counter(use["key"] for result in results for use in result["cache"]["entries"] if not use["hit"])
    assert len(results) == 4
    assert built == Counter(Store(tmp_path / "shared" / "activations").entries())
    [alone] = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/alone/*/result.json")]
    [same] = [result for result in results if result["fingerprint"] == alone["fingerprint"]]
    assert same["metrics"] == alone["metrics"]
