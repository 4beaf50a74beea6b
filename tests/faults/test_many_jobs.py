"""Two hundred jobs, four at a time: each one ends once, and nothing of them is left behind."""

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from sweep_testing import Command, told

from headstart.runs.result import read_result

JOBS = 200


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="looks through the process table")
def test_200_jobs_four_at_a_time(tmp_path: Path, pytestconfig: pytest.Config):
    command = Command(tmp_path, pytestconfig.rootpath)
    rates = f"optimizer.lr={','.join(f'{1e-4 * (1 + step):.4f}' for step in range(JOBS // 20))}"
    choices = ("strategy=freeze", "trainer.max_epochs=1", "seed=range(20)", rates)
    process = command.start("-m", "hydra/launcher=process", "hydra.launcher.n_jobs=4", "rerun=failed", *choices)
    try:
        out, _ = process.communicate(timeout=1500)
    except BaseException:
        os.killpg(process.pid, 9)
        raise
    assert process.returncode == 0, out[-3000:]
    study = command.study()
    runs = sorted(path.parent for path in study.glob("*/result.json"))
    assert len(runs) == JOBS
    assert Counter(read_result(run).status for run in runs) == {"done": JOBS}
    assert len({read_result(run).fingerprint for run in runs}) == JOBS
    assert Counter(job["status"] for job in told(study).values()) == {"done": JOBS}
    listed = subprocess.run(["ps", "-eo", "sid="], capture_output=True, text=True, check=True).stdout.split()
    assert str(process.pid) not in listed
    assert not [path for path in study.rglob("*") if ".tmp" in path.name or path.name.endswith(".part")]
    # What is done is not done again.
    written = [(run / "result.json").stat().st_mtime_ns for run in runs]
    code, out = command("-m", "hydra/launcher=process", "hydra.launcher.n_jobs=4", "rerun=failed", *choices)
    assert code == 0, out[-3000:]
    assert [(run / "result.json").stat().st_mtime_ns for run in runs] == written
