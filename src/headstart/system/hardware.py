"""What this machine offers, found out without importing torch.

``auto`` in the configuration is resolved here, before anything heavy is imported. CUDA is asked in a child
process, because a process that has initialised it can no longer fork workers that use it.
"""

import ctypes
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from headstart.errors import ConfigError

ASSUMED_VARIABLE = "HEADSTART_HARDWARE"
_CUDA_PROBE_TIMEOUT_S = 30
_BF16_CAPABILITY = (8, 0)
# AVX512_BF16 alone is slower than float32: the table is in headstart.config.precision.
_CPU_BF16_FLAG = "amx_bf16"

# Prints [[major, minor], ...] of the visible devices; cuDeviceGetAttribute 75 and 76 are the compute capability.
_CUDA_PROBE = """
import ctypes, json
cuda = ctypes.CDLL("nvcuda.dll" if __import__("os").name == "nt" else "libcuda.so.1")
found, count, value = [], ctypes.c_int(), ctypes.c_int()
if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0:
    for index in range(count.value):
        device, pair = ctypes.c_int(), []
        if cuda.cuDeviceGet(ctypes.byref(device), index) == 0:
            for attribute in (75, 76):
                cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
                pair.append(value.value)
            found.append(pair)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Hardware:
    """What the choices of devices and precision depend on.

    Attributes:
        cuda: compute capability of each visible CUDA device.
        mps: an Apple GPU that torch can use.
        cpu_bf16: the CPU multiplies whole tiles of bfloat16 (AMX), which makes it faster than float32.
        cores: CPU cores that this process may use.
    """

    cuda: tuple[tuple[int, int], ...] = ()
    mps: bool = False
    cpu_bf16: bool = False
    cores: int = 1


@cache
def detect() -> Hardware:
    """This machine, as this process may use it; found out once.

    In a job for another machine it is what that one has, so that both decide alike: see :func:`assumed`.
    """
    told = os.environ.get(ASSUMED_VARIABLE)
    if told:
        return hardware_from(told)
    return Hardware(cuda=cuda_devices(), mps=_has_mps(), cpu_bf16=_has_cpu_bf16(), cores=usable_cores())


@contextmanager
def assumed(hardware: Hardware) -> Iterator[None]:
    """Within the block, and in the processes started there, :func:`detect` says what another machine has."""
    try:
        with variable_set(ASSUMED_VARIABLE, hardware_text(hardware)):
            detect.cache_clear()
            yield
    finally:
        detect.cache_clear()


@contextmanager
def variable_set(name: str, value: str) -> Iterator[None]:
    """Within the block, and in the processes started there, a variable of the environment has this value."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def hardware_text(hardware: Hardware) -> str:
    """As one line, for a variable or a file."""
    return json.dumps(asdict(hardware))


def hardware_from(text: str) -> Hardware:
    """The inverse of :func:`hardware_text`.

    Raises:
        ConfigError: it is no such text.
    """
    try:
        values = json.loads(text)
        pairs = tuple((int(major), int(minor)) for major, minor in values["cuda"])
        return Hardware(pairs, bool(values["mps"]), bool(values["cpu_bf16"]), int(values["cores"]))
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{ASSUMED_VARIABLE}={text} describes no machine; unset it") from None


def cuda_devices() -> tuple[tuple[int, int], ...]:
    """Compute capabilities of the CUDA devices that torch would see; empty without a driver or a CUDA build."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return ()
    if not _torch_build_has_cuda():
        return ()
    try:
        probe = subprocess.run(
            [sys.executable, "-I", "-c", _CUDA_PROBE],
            capture_output=True,
            text=True,
            timeout=_CUDA_PROBE_TIMEOUT_S,
            check=True,
        )
        return tuple((major, minor) for major, minor in json.loads(probe.stdout))
    except (subprocess.SubprocessError, OSError, ValueError):
        return ()


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity and its container's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cores(Path("/sys/fs/cgroup"))
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def memory_bytes() -> int:
    """Main memory that this process may use: the machine's, or less by its container's limit."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        total = 8 * 2**30
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return min(total, int(limit))
    except (OSError, ValueError):
        return total


def resolve_accelerator(accelerator: str, hardware: Hardware) -> str:
    """``auto`` to the best kind of device here; any other name is kept.

    Raises:
        ConfigError: a kind that this machine does not have.
    """
    available = [name for name, present in (("gpu", hardware.cuda), ("mps", hardware.mps), ("cpu", True)) if present]
    if accelerator == "auto":
        return available[0]
    asked = "gpu" if accelerator == "cuda" else accelerator
    if asked == "gpu" and hardware.mps:
        return "mps"
    if asked == "gpu" and not hardware.cuda and not _torch_build_has_rocm():
        raise ConfigError(
            f"trainer.accelerator={accelerator}, but no GPU is visible to this process; use trainer=auto or "
            "trainer=cpu, or check the driver, CUDA_VISIBLE_DEVICES and that torch is not a CPU-only build"
        )
    if asked == "mps" and not hardware.mps:
        raise ConfigError("trainer.accelerator=mps, but this is not a Mac with an Apple GPU; use trainer=auto")
    return asked


def resolve_devices(
    devices: int | str | Sequence[int], accelerator: str, strategy: str, hardware: Hardware
) -> int | list[int]:
    """``auto`` to one device, or to all GPUs where a distributed strategy is asked for; -1 to all.

    Raises:
        ConfigError: more GPUs than there are.
    """
    present = len(hardware.cuda) if accelerator == "gpu" else 1
    if devices == "auto":
        return max(1, present) if accelerator == "gpu" and strategy not in {"auto", "single_device"} else 1
    if isinstance(devices, str):
        devices = [int(part) for part in devices.split(",") if part.strip()] if "," in devices else int(devices)
    if isinstance(devices, int):
        count = max(1, present) if devices == -1 else devices
        if accelerator == "gpu" and hardware.cuda and count > present:
            raise ConfigError(f"trainer.devices={devices}, but {present} GPU(s) are visible; ask for at most {present}")
        if accelerator == "mps" and count > 1:
            raise ConfigError(f"trainer.devices={devices}, but an Apple GPU is a single device; use trainer.devices=1")
        return count
    if not devices or len(set(devices)) < len(devices):
        raise ConfigError(f"trainer.devices={list(devices)}: must name each device once, such as [0,1]")
    if accelerator == "cpu":
        raise ConfigError(
            f"trainer.devices={list(devices)} names GPUs, and the training runs on the CPU; use trainer.devices=1, or "
            f"trainer.devices={len(devices)} with trainer=ddp_cpu for so many processes"
        )
    absent = [index for index in devices if accelerator == "gpu" and hardware.cuda and not 0 <= index < present]
    if absent:
        raise ConfigError(
            f"trainer.devices={list(devices)}, but GPU {absent[0]} is not visible; there are {present}, counted from 0"
        )
    return list(devices)


def resolve_precision(precision: str | int, accelerator: str, hardware: Hardware, *, slow_in_half: bool = False) -> str:
    """``auto`` to ``bf16-mixed`` where the devices are fast at it, else to ``32-true``; short names to long ones.

    Args:
        precision: as asked for.
        accelerator: decided.
        hardware: this machine.
        slow_in_half: a CPU is slower in bfloat16 at what the run does.
    """
    if precision != "auto":
        return {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}.get(str(precision), str(precision))
    if accelerator == "gpu":
        fast = bool(hardware.cuda) and min(hardware.cuda) >= _BF16_CAPABILITY
    else:
        fast = accelerator == "cpu" and hardware.cpu_bf16 and not slow_in_half
    return "bf16-mixed" if fast else "32-true"


def _torch_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""


def _torch_build_has_cuda() -> bool:
    return not any(mark in _torch_version() for mark in ("+cpu", "+rocm", "+xpu"))


def _torch_build_has_rocm() -> bool:
    return "+rocm" in _torch_version()


def _has_mps() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def _has_cpu_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return _CPU_BF16_FLAG in flags


def _cgroup_cores(root: Path) -> float | None:
    """The container's CPU quota in cores, or None without one (cgroup v2, then v1)."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu" / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 and period_us > 0 else None
    except (OSError, ValueError):
        return None
