"""Whole runs with and without stored activations, and what others find of a run that was killed."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import CacheError
from headstart.store.store import Store

#: The first rows of an entry are all that is ever written of it.
HELD = """
import time
from headstart.store.building import ShardWriter
append = ShardWriter.append

def hold(self, rows):
    append(self, rows)
    time.sleep(600)

ShardWriter.append = hold
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def probabilities(trained) -> dict[str, np.ndarray]:
    return {s: np.load(trained.run.predictions_file(s))["probabilities"] for s in ("val", "test")}


def test_the_same_result_with_and_without_and_once_more_from_the_store(train: Callable, folder: Path):
    place = f"paths.cache_dir={folder}"
    plain = train("datamodule.augment=none", place, "cache=off", output="off")
    built = train("datamodule.augment=none", place, output="built")
    found = train("datamodule.augment=none", place, output="found")
    assert plain.run.path.name == built.run.path.name  # one fingerprint
    assert plain.result.cache["reason"] == "cache=off"
    assert (built.result.cache["used"], built.result.cache["hit"]) == (True, False)
    assert (found.result.cache["used"], found.result.cache["hit"]) == (True, True)
    assert len(Store(folder / "activations").entries()) == 3
    for split, expected in probabilities(plain).items():
        np.testing.assert_allclose(probabilities(built)[split], expected, atol=1e-4)
        np.testing.assert_array_equal(probabilities(found)[split], probabilities(built)[split])
    assert found.result.metrics == built.result.metrics
    assert built.result.metrics["test/acc"] == plain.result.metrics["test/acc"]
    # Costs are cold: what was found is counted at the price of making it.
    assert found.result.cost.extract_seconds == pytest.approx(built.result.cost.extract_seconds, abs=2e-3)
    assert plain.result.cost.extract_seconds == 0


def test_requiring_fails_with_the_reason(train: Callable):
    with pytest.raises(CacheError, match=r"datamodule\.augment=light"):
        train("datamodule.augment=light", "cache.views=0", "cache=require")


def test_a_run_killed_while_storing_leaves_nothing_that_looks_usable(start: Callable, tiny, folder: Path):
    choices = [*tiny, "datamodule.shots=null", "datamodule.augment=none", f"paths.cache_dir={folder}"]
    store = folder / "activations"
    process = start(*choices, "datamodule.image_size=128", first=HELD)
    deadline = time.monotonic() + 300
    while not list(store.glob(".*.tmp/*.bin")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert Store(store).entries() == []
    leftovers = list(store.glob(".*.tmp"))
    assert leftovers
    assert not any((path / "meta.json").exists() for path in leftovers)
    assert Store(store).clean() == len(leftovers)


@pytest.mark.slow
def test_two_commands_at_once_share_one_extraction(start: Callable, tiny, folder: Path, tmp_path: Path):
    choices = [*tiny, "datamodule.shots=null", "datamodule.augment=none", f"paths.cache_dir={folder}"]
    processes = [start(*choices, f"seed={seed}", "datamodule.image_size=96") for seed in (1, 2)]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    results = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/runs/*/result.json")]
    assert len(results) == 2
    assert len(Store(folder / "activations").entries()) == 3
    keys = [{entry["key"] for entry in result["cache"]["entries"]} for result in results]
    assert keys[0] == keys[1]
    built = [entry for result in results for entry in result["cache"]["entries"] if not entry["hit"]]
    assert len(built) == 3
