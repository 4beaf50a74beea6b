"""Jobs with real choices that train nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from launch_testing import Behaviour, ScriptedWorkers

from headstart.config import compose, resolve_run
from headstart.launch.jobs import Job


@pytest.fixture
def workers() -> ScriptedWorkers:
    return ScriptedWorkers()


@pytest.fixture
def make_job(tmp_path: Path, workers: ScriptedWorkers) -> Callable[..., Job]:
    """A job with real choices; what follows the overrides is what becomes of each attempt."""

    def make(number: int, *overrides: str, attempts: Sequence[Behaviour] = (), problem: str = "") -> Job:
        run = None
        if not problem:
            fixed = ("backbone=small_cnn", "backbone.weights=none", f"paths.output_dir={tmp_path}", "name=study")
            run = resolve_run(compose([*fixed, *overrides]))
        job = Job(number, " ".join(overrides) or f"job {number}", tuple(overrides), run, problem)
        workers.jobs[number] = job
        workers.behaviour[number] = list(attempts)
        return job

    return make
