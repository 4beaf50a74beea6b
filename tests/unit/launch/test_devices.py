"""Which GPUs a job gets."""

import pytest

from headstart.errors import ConfigError
from headstart.launch.devices import Gpus, visible_gpus


def test_each_job_gets_a_gpu_of_its_own_until_none_is_left():
    gpus = Gpus(("0", "1"))
    assert gpus.take(1) == ("0",)
    assert gpus.take(1) == ("1",)
    assert gpus.take(1) is None
    gpus.give_back(("0",))
    assert gpus.take(1) == ("0",)


def test_a_distributed_job_waits_for_all_of_its_gpus():
    gpus = Gpus(("0", "1"))
    assert gpus.take(1) == ("0",)
    assert gpus.take(2) is None
    assert gpus.take(1) == ("1",)


def test_jobs_share_a_gpu_only_where_that_is_asked_for_and_the_least_used_goes_first():
    gpus = Gpus(("0", "1"), jobs_per_gpu=2)
    assert [gpus.take(1) for _ in range(5)] == [("0",), ("1",), ("0",), ("1",), None]


def test_named_gpus_are_kept_free_for_a_job_that_asks_for_them():
    gpus = Gpus(("4", "6"))
    assert gpus.take([1]) == ("6",)
    assert gpus.take(1) == ("4",)
    with pytest.raises(ConfigError, match="counted from 0"):
        gpus.take([2])


def test_more_gpus_than_there_are_is_an_error_not_an_endless_wait():
    with pytest.raises(ConfigError, match="2 GPUs are visible"):
        Gpus(("0", "1")).take(3)


def test_without_gpus_nothing_is_given_out():
    gpus = Gpus(())
    assert [gpus.take(0), gpus.take(1), gpus.take([0])] == [(), (), ()]


def test_names_come_from_what_this_process_may_see(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab")
    assert visible_gpus(2) == ("3", "GPU-ab")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus(2) == ("0", "1")
