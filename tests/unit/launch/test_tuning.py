"""Equal chances: what each arm may try, what is chosen for it, and what becomes of the comparison's jobs."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headstart.config import compose, resolve_run
from headstart.errors import ConfigError, RunError
from headstart.launch import tuning
from headstart.launch.jobs import Job, Outcome
from headstart.launch.tuning import find_arms, trial_rows, tuned_jobs
from headstart.runs.result import Cost, Result
from headstart.study.tuning import edges, expected_best

Row = tuple[str, ...]


class Launcher:
    """Plans real choices and trains nothing: ``score`` says what a job's overrides come to; None is a failure."""

    def __init__(self, folder: Path, score: Callable[[dict[str, str]], float | None]) -> None:
        self.folder, self.score = folder, score
        self.ran: list[dict[str, str]] = []

    def plan(self, rows: Sequence[Sequence[str]]) -> list[Job]:
        jobs = []
        for number, row in enumerate(rows):
            fixed = ("backbone=small_cnn", "backbone.weights=none", "study.protocol=tuned")
            run = resolve_run(compose([*fixed, f"paths.output_dir={self.folder}", "name=study", *row]))
            jobs.append(Job(number, " ".join(row), tuple(row), run))
        return jobs

    def pool(self) -> None:
        return None


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Launcher]:
    def make(score: Callable[[dict[str, str]], float | None], metric: str = "val/acc") -> Launcher:
        made = Launcher(tmp_path, score)

        def run_sweep(jobs: Sequence[Job], pool: Any) -> list[Outcome]:
            outcomes = []
            for job in jobs:
                given = dict(item.partition("=")[::2] for item in job.arguments)
                made.ran.append(given)
                value = score(given)
                result = Result("done", "", metrics={metric: value}, cost=Cost(total_seconds=2.0))
                result = replace(result, details={"monitor": metric})
                outcomes.append(Outcome(job, "error", "no") if value is None else Outcome(job, result=result))
            return outcomes

        monkeypatch.setattr(tuning, "run_sweep", run_sweep)
        return made

    return make


def tuned(launcher: Launcher, batch: Sequence[Row]) -> list[Row]:
    jobs = launcher.plan(batch)
    return [job.arguments for job in tuned_jobs(jobs, batch, launcher)]


BATCH: list[Row] = [(f"strategy={s}", f"seed={n}") for s in ("freeze", "full") for n in (1, 2, 3)]


def test_each_arm_is_given_its_best_value_for_every_seed(launcher: Callable[..., Launcher], tmp_path: Path):
    best = {"freeze": 3e-2, "full": 3e-4}
    made = launcher(lambda job: 1 - abs(float(job["optimizer.lr"]) - best[job["strategy"]]))
    rows = tuned(made, BATCH)
    for row, (strategy, seed) in zip(rows, BATCH, strict=True):
        lr = {"strategy=freeze": "0.03", "strategy=full": "0.0003"}[strategy]
        assert row == (strategy, seed, f"optimizer.lr={lr}", "study.tuned=[optimizer.lr]")
    # The trials: the first seed only, in a study of their own that is not tuned again, five for each arm.
    assert {job["seed"] for job in made.ran} == {"1"}
    assert {job["name"] for job in made.ran} == {"study-tuning"}
    assert {job["study.protocol"] for job in made.ran} == {"fixed"}
    assert [job["strategy"] for job in made.ran] == ["freeze"] * 5 + ["full"] * 5
    told = json.loads((tmp_path / "study" / "tuning.json").read_text())
    assert [arm["chosen"] for arm in told["arms"]] == [{"optimizer.lr": "0.03"}, {"optimizer.lr": "0.0003"}]
    assert [len(arm["trials"]) for arm in told["arms"]] == [5, 5]
    assert told["arms"][1]["trials"][0]["seconds"] == 2.0


def test_what_repeats_an_arm_makes_no_other(launcher: Callable[..., Launcher]):
    made = launcher(lambda job: 0.5)
    batch = [(f"datamodule.split_seed={split}", f"seed={seed}") for split in (0, 1) for seed in (1, 2)]
    jobs = made.plan(batch)
    [arm] = find_arms(jobs, batch)
    assert arm.rows == tuple(batch)
    rows, _ = trial_rows(jobs, [arm])
    assert len(rows) == 5
    assert all(row[:2] == batch[0] for row in rows)


def test_several_replicates_score_a_trial_together(launcher: Callable[..., Launcher]):
    # By the first seed alone 1e-3 would win; over both it is 1e-2.
    values = {("0.001", "1"): 0.9, ("0.001", "2"): 0.1, ("0.01", "1"): 0.8, ("0.01", "2"): 0.8}
    made = launcher(lambda job: values.get((job["optimizer.lr"], job["seed"]), 0.0))
    batch = [("study.tuning.replicates=2", f"seed={n}") for n in (1, 2, 3)]
    assert all("optimizer.lr=0.01" in row for row in tuned(made, batch))


def test_a_trial_that_fails_is_not_chosen_and_an_arm_without_any_is_refused(launcher: Callable[..., Launcher]):
    made = launcher(lambda job: None if float(job["optimizer.lr"]) > 1e-2 else float(job["optimizer.lr"]))
    assert "optimizer.lr=0.01" in tuned(made, BATCH)[0]
    made = launcher(lambda job: None)
    with pytest.raises(RunError, match=r"no trial of strategy=freeze ended well"):
        tuned(made, BATCH)


def test_less_is_better_for_an_error(launcher: Callable[..., Launcher]):
    made = launcher(lambda job: float(job["optimizer.lr"]), metric="val/rmse")
    assert [row[2] for row in tuned(made, BATCH)] == ["optimizer.lr=0.001"] * 3 + ["optimizer.lr=0.0001"] * 3


def test_every_arm_has_as_many_trials_as_the_one_with_the_fewest(launcher: Callable[..., Launcher]):
    made = launcher(lambda job: 0.5)
    batch = [(f"strategy={s}", "+study.tuning.space.full={optimizer.lr: [1e-4, 1e-3]}") for s in ("freeze", "full")]
    arms = find_arms(made.plan(batch), batch)
    assert [len(arm.points) for arm in arms] == [2, 2]
    batch = [(f"strategy={s}", "study.tuning.trials=4") for s in ("freeze", "full")]
    first, second = (find_arms(made.plan(batch), batch) for _ in range(2))
    assert [len(arm.points) for arm in first] == [4, 4]
    assert first == second  # The same command tries the same points, or what was done would be done again.


def test_a_first_job_with_a_mistake_does_not_decide_the_budget(launcher: Callable[..., Launcher]):
    batch: list[Row] = [(f"strategy={s}", "study.tuning.trials=3") for s in ("freeze", "full")]
    mistaken, sound = launcher(lambda job: 0.5).plan(batch)
    [arm] = find_arms([replace(mistaken, run=None, problem="no"), sound], batch)
    assert len(arm.points) == 3


def test_what_the_command_sets_and_what_a_solved_head_has_not_is_not_tuned(launcher: Callable[..., Launcher]):
    made = launcher(lambda job: 0.5)
    batch: list[Row] = [("optimizer.lr=0.1", "seed=1")]
    with pytest.raises(ConfigError, match="nothing to tune"):
        find_arms(made.plan(batch), batch)
    batch = [("head=linear",), ("head=ncm",)]
    linear, ncm = find_arms(made.plan(batch), batch)
    assert (linear.tunable, ncm.tunable) == (True, False)
    rows = tuned(made, batch)
    assert rows[1] == ("head=ncm",)
    assert {job["head"] for job in made.ran} == {"linear"}


@pytest.mark.parametrize("space", ["3", "{optimizer.lr: 1e-3}", "{optimizer.lr: []}"])
def test_a_space_that_is_none_is_told(launcher: Callable[..., Launcher], space: str):
    made = launcher(lambda job: 0.5)
    batch: list[Row] = [("strategy=full", f"+study.tuning.space.full={space}")]
    with pytest.raises(ConfigError, match=r"study.tuning.space.full=.* must name keys with lists of values"):
        find_arms(made.plan(batch), batch)


def test_a_choice_at_the_edge_is_told(launcher: Callable[..., Launcher], capsys: pytest.CaptureFixture[str]):
    made = launcher(lambda job: float(job["optimizer.lr"]))
    tuned(made, BATCH)
    out = " ".join(capsys.readouterr().out.split())
    assert "strategy=full: optimizer.lr=0.01 is at the edge of what was tried; widen study.tuning.space.full" in out
    batch: list[Row] = [("strategy=full",)]
    [arm] = find_arms(made.plan(batch), batch)
    assert edges(arm.points, (("optimizer.lr", "0.01"),)) == ["optimizer.lr"]
    assert edges(arm.points, (("optimizer.lr", "0.001"),)) == []


def test_a_plan_runs_nothing(launcher: Callable[..., Launcher], tmp_path: Path):
    made = launcher(lambda job: 0.5)
    batch = [(*row, "plan=true") for row in BATCH]
    assert tuned(made, batch) == batch
    assert made.ran == []
    assert not list(tmp_path.glob("study*/*"))


@pytest.mark.parametrize("higher", [True, False])
def test_expected_best_is_the_mean_over_every_draw(higher: bool):
    scores = [0.7, 0.2, 0.9, 0.9]
    best = max if higher else min
    for k, expected in enumerate(expected_best(scores, higher=higher), start=1):
        draws = list(itertools.product(scores, repeat=k))
        assert expected == pytest.approx(sum(map(best, draws)) / len(draws), abs=1e-12)


def test_arms_that_other_metrics_choose_in_are_no_one_comparison(launcher: Callable[..., Launcher]):
    rows = [("strategy=full", f"callbacks.checkpoint.monitor=val/{name}") for name in ("acc", "loss")]
    with pytest.raises(ConfigError, match=r"compares arms by one metric, and that of 'strategy=full .*give a sweep"):
        tuned(launcher(lambda job: 0.5), rows)
