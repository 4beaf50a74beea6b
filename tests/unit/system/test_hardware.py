"""What ``auto`` becomes on machines that this one is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.errors import ConfigError
from headstart.system import hardware
from headstart.system.hardware import Hardware, resolve_accelerator, resolve_devices, resolve_precision

CPU = Hardware(cores=2)
FAST_CPU = Hardware(cpu_bf16=True)
MAC = Hardware(mps=True)
T4 = Hardware(cuda=((7, 5),))
FOUR_A100 = Hardware(cuda=((8, 0),) * 4)
MIXED = Hardware(cuda=((8, 0), (7, 5)))


@pytest.mark.parametrize(
    ("asked", "machine", "expected"),
    [
        ("auto", CPU, "cpu"),
        ("auto", MAC, "mps"),
        ("auto", T4, "gpu"),
        ("cpu", T4, "cpu"),
        ("gpu", MAC, "mps"),
        ("cuda", T4, "gpu"),
    ],
)
def test_accelerator(asked: str, machine: Hardware, expected: str):
    assert resolve_accelerator(asked, machine) == expected


@pytest.mark.parametrize(("asked", "machine"), [("gpu", CPU), ("cuda", CPU), ("mps", T4)])
def test_an_absent_accelerator_is_an_error_that_says_what_to_do(asked: str, machine: Hardware):
    with pytest.raises(ConfigError, match=rf"trainer\.accelerator={asked}, but .*use trainer=auto"):
        resolve_accelerator(asked, machine)


@pytest.mark.parametrize(
    ("asked", "accelerator", "strategy", "machine", "expected"),
    [
        ("auto", "gpu", "auto", FOUR_A100, 1),
        ("auto", "gpu", "ddp", FOUR_A100, 4),
        ("auto", "cpu", "ddp", CPU, 1),
        (-1, "gpu", "auto", FOUR_A100, 4),
        ("2", "gpu", "auto", FOUR_A100, 2),
        ("0,2", "gpu", "auto", FOUR_A100, [0, 2]),
        ([1], "gpu", "auto", FOUR_A100, [1]),
        (2, "cpu", "ddp", CPU, 2),
    ],
)
def test_devices(asked, accelerator, strategy, machine, expected):
    assert resolve_devices(asked, accelerator, strategy, machine) == expected


@pytest.mark.parametrize(
    ("asked", "accelerator", "machine", "words"),
    [
        (5, "gpu", FOUR_A100, "4 GPU"),
        ([0, 7], "gpu", FOUR_A100, "GPU 7 is not visible"),
        (2, "mps", MAC, "single device"),
    ],
)
def test_too_many_devices(asked, accelerator, machine, words):
    with pytest.raises(ConfigError, match=words):
        resolve_devices(asked, accelerator, "auto", machine)


@pytest.mark.parametrize(
    ("asked", "accelerator", "machine", "expected"),
    [
        ("auto", "gpu", FOUR_A100, "bf16-mixed"),
        ("auto", "gpu", T4, "32-true"),
        ("auto", "gpu", MIXED, "32-true"),
        ("auto", "cpu", FAST_CPU, "bf16-mixed"),
        ("auto", "cpu", CPU, "32-true"),
        ("auto", "cpu", FOUR_A100, "32-true"),
        ("auto", "mps", MAC, "32-true"),
        (32, "cpu", FAST_CPU, "32-true"),
        ("bf16", "cpu", CPU, "bf16-mixed"),
    ],
)
def test_precision(asked, accelerator, machine, expected):
    assert resolve_precision(asked, accelerator, machine) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512_bf16", False),
        ("fpu amx_bf16 amx_tile", True),
        ("fpu avx2 avx512f", False),
        ("amx_bf16x", False),
    ],
)
def test_bfloat16_is_read_from_whole_flags(flags: str, expected: bool, tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert hardware._has_cpu_bf16(cpuinfo) is expected
    assert hardware._has_cpu_bf16(tmp_path / "absent") is False


def test_the_containers_quota_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert hardware._cgroup_cores(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert hardware._cgroup_cores(tmp_path) is None
    monkeypatch.setattr(hardware, "_cgroup_cores", lambda root: 0.5)
    assert hardware.usable_cores() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_affinity_counts():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from headstart.system.hardware import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_a_cpu_build_of_torch_sees_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware, "_torch_version", lambda: "2.15.0+cpu")
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(hardware, "_CUDA_PROBE", "print([[9, 0]])")
    assert hardware.cuda_devices() == ()


def test_without_a_driver_nobody_asks_for_the_build_of_torch(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(hardware.ctypes, "CDLL", missing)
    monkeypatch.setattr(hardware, "_torch_version", lambda: pytest.fail("it takes longer than the driver to find out"))
    assert hardware.cuda_devices() == ()


def test_a_failing_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware, "_torch_version", lambda: "2.15.0")
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(hardware, "_CUDA_PROBE", "import os; os.abort()")
    assert hardware.cuda_devices() == ()
    monkeypatch.setattr(hardware, "_CUDA_PROBE", "print([[9, 0], [8, 6]])")
    assert hardware.cuda_devices() == ((9, 0), (8, 6))


@pytest.mark.gpu
def test_torch_sees_the_same_devices():
    import torch

    assert hardware.cuda_devices() == tuple(
        torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())
    )
