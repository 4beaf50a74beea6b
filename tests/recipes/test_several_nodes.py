"""Distributed runs whose processes are not all started by the first: torchrun, SLURM, one command for each node."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.runs.directory import find_runs
from headstart.runs.result import read_result

FIXED = (
    "backbone=small_cnn",
    "backbone.weights=none",
    "strategy=full",
    "datamodule.shots=4",
    "datamodule.image_size=32",
    "datamodule.num_workers=0",
    "datamodule.test_fraction=0.05",
    "datamodule.val_fraction=0.05",
    "callbacks.plots=false",
    "trainer=ddp_cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=2",
)


def free_port() -> str:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return str(place.getsockname()[1])


def leaders(node: int, port: str, script: str) -> tuple[list[str], dict[str, str]]:
    """The same command on each node."""
    return [sys.executable, script], {"NODE_RANK": str(node), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def torchrun(node: int, port: str, script: str) -> tuple[list[str], dict[str, str]]:
    place = [f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}"]
    return [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *place, script], {}


def slurm(node: int, port: str, script: str) -> tuple[list[str], dict[str, str]]:
    """What ``srun --nodes=2 --ntasks-per-node=1`` sets."""
    variables = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "study",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_PROCID": str(node),
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": str(node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    return [sys.executable, script], variables


Way = Callable[[int, str, str], tuple[list[str], dict[str, str]]]


def run_nodes(way: Way, folder: Path, script: str, *overrides: str) -> list[tuple[int, str]]:
    """Start both nodes at once; the exit code and output of each."""
    port, processes = free_port(), []
    for node in (0, 1):
        command, variables = way(node, port, script)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        processes.append(
            subprocess.Popen(
                [*command, *FIXED, "trainer.num_nodes=2", "trainer.devices=1", *overrides],
                cwd=folder,
                env=environment | variables | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("way", [leaders, torchrun, slurm])
def test_two_nodes_give_what_two_processes_of_one_machine_give(way: Way, tmp_path: Path, repository: Path):
    script = str(repository / "train.py")
    single = subprocess.run(
        [sys.executable, script, *FIXED, "name=one"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert single.returncode == 0, single.stderr
    for code, output in run_nodes(way, tmp_path, script, "name=two"):
        assert code == 0, output
    [one], [two] = find_runs(tmp_path / "outputs" / "one"), find_runs(tmp_path / "outputs" / "two")
    expected, found = read_result(one), read_result(two)
    assert found.cost.device.startswith("2 x cpu")
    for name, value in expected.metrics.items():
        assert found.metrics[name] == pytest.approx(value, abs=1e-4), name

    # Again: process 0 returns what is there, and no other one waits for a training that does not come.
    before = (two / "result.json").stat()
    for code, output in run_nodes(way, tmp_path, script, "name=two"):
        assert code == 0, output
    assert (two / "result.json").stat() == before
    assert len(json.loads((two / "attempts.json").read_text())["attempts"]) == 1
    assert sorted(path.name for path in two.parent.iterdir() if "ranks" in path.name) == []
