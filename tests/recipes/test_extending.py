"""``extend=true``: a finished run trains on, and is never taken for one that was long from the start."""

import pytest

from headstart.errors import RunError
from headstart.runs.result import read_metrics_csv

CONSTANT = ("scheduler=none", "scheduler.warmup_epochs=0", "strategy=full")


@pytest.mark.slow
def test_a_run_that_is_extended_equals_one_that_was_long_from_the_start(train):
    short = train(*CONSTANT, "trainer.max_epochs=1")
    extended = train(*CONSTANT, "trainer.max_epochs=2", "extend=true")
    whole = train(*CONSTANT, "trainer.max_epochs=2", output="whole")
    assert len({short.result.fingerprint, extended.result.fingerprint, whole.result.fingerprint}) == 3
    assert extended.result.metrics == whole.result.metrics
    rows = read_metrics_csv(extended.run.metrics_file)
    assert [row["epoch"] for row in rows] == [0, 1]
    assert extended.result.cost.images_seen == whole.result.cost.images_seen


def test_extending_the_same_run_again_returns_it(train):
    train(*CONSTANT, "trainer.max_epochs=1")
    first = train(*CONSTANT, "trainer.max_epochs=2", "extend=true")
    second = train(*CONSTANT, "trainer.max_epochs=2", "extend=true")
    assert first.run.path == second.run.path
    assert first.result.cost == second.result.cost


def test_extending_needs_a_shorter_run_of_the_same_choices(train):
    train(*CONSTANT, "trainer.max_epochs=1")
    with pytest.raises(RunError, match="holds no finished run of these choices"):
        train(*CONSTANT, "trainer.max_epochs=2", "extend=true", "optimizer.lr=0.5")
