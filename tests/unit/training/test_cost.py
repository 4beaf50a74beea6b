"""What a real fit costs."""

import mmap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from headstart_testing import tiny_run

from headstart.strategies import Freeze
from headstart.training.cost import CostMeter


def fit(meter: CostMeter, epochs: int = 3) -> None:
    tiny_run(Freeze(), max_epochs=epochs, callbacks=[meter]).fit()


def test_cost_counts_images_and_time_and_is_recorded_every_epoch():
    recorded: list[dict[str, Any]] = []
    meter = CostMeter(SimpleNamespace(record=lambda **cost: recorded.append(cost)))
    fit(meter)
    assert [cost["images_seen"] for cost in recorded] == [30, 60, 90, 90]
    seconds = [cost["fit_seconds"] for cost in recorded]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < 60
    assert "total_seconds" not in recorded[-1]
    assert 20e6 < meter.peak_memory_bytes < 64e9


def test_the_total_of_an_attempt_that_is_cut_off_is_no_less_than_its_training():
    recorded: list[dict[str, Any]] = []
    began = time.perf_counter() - 5
    fit(CostMeter(SimpleNamespace(record=lambda **cost: recorded.append(cost)), since=began))
    assert len(recorded) == 4
    assert all(cost["fit_seconds"] + 5 <= cost["total_seconds"] < 60 for cost in recorded)


def test_what_is_counted_elsewhere_is_left_out():
    spent = [0.0]
    recorded: list[dict[str, Any]] = []
    meter = CostMeter(
        SimpleNamespace(record=lambda **cost: recorded.append(cost)),
        apart=lambda: spent[0],
        since=time.perf_counter() - 100,
    )
    fit(meter, epochs=1)
    before = recorded[-1]
    spent[0] = 50.0
    meter.report()
    assert recorded[-1]["fit_seconds"] == 0
    assert before["total_seconds"] - 50 <= recorded[-1]["total_seconds"] < before["total_seconds"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a process's peak")
def test_the_peak_of_an_earlier_run_in_the_process_is_forgotten():
    # 400 MB of the system's own: a tensor may lie in memory that the process has, and keeps.
    ballast = mmap.mmap(-1, 400_000_000)
    ballast[:: mmap.PAGESIZE] = bytes(len(range(0, len(ballast), mmap.PAGESIZE)))
    first = CostMeter()
    fit(first, epochs=1)
    before = first.peak_memory_bytes
    ballast.close()
    second = CostMeter()
    fit(second, epochs=1)
    assert second.peak_memory_bytes < before - 300e6
