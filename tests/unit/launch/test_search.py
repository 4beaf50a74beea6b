"""A search without training: budgets, pruning, several objectives, resume, trials that fail."""

import csv
import math

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from launch_testing import dies, fails, finishes

from headstart.errors import ConfigError, RunError
from headstart.launch.pool import JobPool, PoolSettings
from headstart.launch.search import Search, SearchSettings, objective_value, only_one, usual_objectives
from headstart.launch.search_summary import best_overrides, raise_unless_found, show_search
from headstart.launch.space import build_space
from headstart.runs.result import Cost, Result

pytestmark = pytest.mark.usefixtures("in_memory")

ACCURACY = {"val/acc": "maximize"}
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


@pytest.fixture
def in_memory(monkeypatch):
    """The same storage for all searches of a test; writing a database for each would be most of the tests' time."""
    storage = optuna.storages.InMemoryStorage()
    monkeypatch.setattr("headstart.launch.search.open_storage", lambda path: storage)


@pytest.fixture
def search(tmp_path, workers, make_job, finished):
    """A search whose jobs end as ``becomes(overrides)`` says; by default accuracy is best at a rate of 0.01."""

    def quality(job) -> float:
        return 1 - abs(math.log10(job.resolved.config["optimizer"]["lr"]) + 2) / 4

    def make(*overrides, becomes=None, per="strategy", objectives=ACCURACY, **settings) -> Search:
        space = build_space(OverridesParser.create().parse_overrides(list(overrides)), per=per)

        def done(job):
            metrics = {"val/acc": quality(job)}
            return finishes(lambda **given: finished(metrics=metrics, cost=Cost(total_seconds=10.0), **given))

        def job_for(chosen, number, label):
            job = make_job(number, *chosen)
            workers.behaviour[number] = [(becomes or done)(job)]
            return job

        found = Search(space, SearchSettings(objectives, **settings), tmp_path / "study", job_for)
        found.done = done  # type: ignore[attr-defined]
        return found

    return make


def run(search: Search, workers, n_jobs: int = 1) -> Search:
    search.run(JobPool(PoolSettings(n_jobs), workers))
    return search


def states(search: Search) -> list[list[str]]:
    return [[trial.state.name for trial in arm.trials] for arm in search.arms]


def test_every_arm_gets_the_same_number_of_trials(search, workers, tmp_path, capsys):
    found = run(search("strategy=freeze,full", LR, trials=4), workers, n_jobs=3)
    assert states(found) == [["COMPLETE"] * 4] * 2
    rows = list(csv.DictReader((tmp_path / "study" / "search.csv").read_text().splitlines()))
    assert [row["arm"] for row in rows] == ["strategy=freeze"] * 4 + ["strategy=full"] * 4
    best = max((row for row in rows if row["arm"] == "strategy=full"), key=lambda row: float(row["val/acc"]))
    show_search(found)
    out = capsys.readouterr().out
    assert f"strategy=full optimizer.lr={best['optimizer.lr']}" in out
    assert best_overrides(found, found.arms[1].best[0]) == [f"optimizer.lr={best['optimizer.lr']}"]


def test_every_arm_gets_the_same_seconds(search, workers):
    made = search(
        "strategy=freeze,full",
        LR,
        budget="seconds",
        seconds=25,
    )
    assert states(run(made, workers)) == [["COMPLETE"] * 3] * 2  # of 10 s each; the last one may end later


def test_a_search_is_kept_in_a_file(search, workers, tmp_path, monkeypatch):
    monkeypatch.undo()
    run(search(LR, trials=1), workers)
    again = run(search(LR, trials=1), workers)
    assert (len(workers.started), states(again)) == (1, [["COMPLETE"]])
    assert (tmp_path / "study" / "search.db").exists()


def test_the_same_command_asks_nothing_twice_and_a_larger_budget_goes_on(search, workers):
    first = run(search(LR, trials=3), workers)
    rates = [trial.params["optimizer.lr"] for trial in first.arms[0].trials]
    again = run(search(LR, trials=3), workers)
    assert (len(workers.started), again.outcomes) == (3, [])
    more = run(search(LR, trials=6), workers)
    found = [trial.params["optimizer.lr"] for trial in more.arms[0].trials]
    assert found[:3] == rates
    assert len(set(found)) == 6


def test_another_question_in_the_same_study_starts_anew(search, workers):
    run(search(LR, trials=2), workers)
    assert states(run(search("optimizer.lr=0.1,0.2", trials=1), workers)) == [["COMPLETE"]]


def test_what_was_interrupted_is_asked_again(search, workers):
    made = search(LR, trials=2, becomes=lambda job: lambda job: None)
    pool = JobPool(PoolSettings(1), workers)

    def interrupt(timeout_s=0):
        pool.__class__.step = step
        raise KeyboardInterrupt

    step = pool.__class__.step
    pool.__class__.step = lambda self, timeout_s=0: interrupt()
    with pytest.raises(KeyboardInterrupt):
        made.run(pool)
    [asked] = [trial.params for trial in made.arms[0].study.get_trials()]
    found = run(search(LR, trials=2), workers)
    assert found.arms[0].trials[0].params == asked
    assert states(found) == [["COMPLETE"] * 2]


def test_trials_that_fail_or_are_no_number_are_recorded_and_the_search_goes_on(search, workers, finished, tmp_path):
    ends = [
        lambda job: fails(ValueError("broken")),
        lambda job: dies(-9),
        lambda job: finishes(lambda **given: finished(metrics={"val/acc": math.nan}, **given)),
    ]
    made = search(LR, trials=6, becomes=lambda job: ends.pop(0)(job) if ends else made.done(job))
    found = run(made, workers)
    assert states(found) == [["FAIL"] * 3 + ["COMPLETE"] * 3]
    rows = list(csv.DictReader((tmp_path / "study" / "search.csv").read_text().splitlines()))
    assert [row["outcome"] for row in rows][:3] == [
        "ValueError: broken",
        "killed by SIGKILL (the system may have run out of memory)",
        "not a number",
    ]
    raise_unless_found(found)


def test_a_search_without_a_finished_trial_is_an_error(search, workers):
    found = run(search(LR, trials=2, becomes=lambda job: dies(1)), workers)
    with pytest.raises(RunError, match="no trial of the search is complete"):
        raise_unless_found(found)


def test_a_search_by_time_ends_where_all_that_there_is_to_try_has_failed(search, workers):
    made = search("optimizer.lr=0.1,0.2", budget="seconds", seconds=5, becomes=lambda job: fails(ValueError("broken")))
    found = run(made, workers)
    assert len(workers.started) == 2
    assert set(states(found)[0]) == {"FAIL"}


def test_several_objectives_give_a_front(search, workers, finished):
    def becomes(job):
        rate = job.resolved.config["optimizer"]["lr"]
        return finishes(
            lambda **given: finished(metrics={"val/acc": rate}, cost=Cost(fit_seconds=100 * rate**2), **given)
        )

    goals = {"val/acc": "maximize", "cost/fit_seconds": "minimize"}
    found = run(search(LR, trials=4, becomes=becomes, objectives=goals, sampler="nsga2"), workers)
    assert len(found.arms[0].best) == 4  # more accurate is dearer: nothing beats anything


def epochs(job, values):
    path = job.directory.metrics_file
    path.write_text("epoch,val/acc\n" + "".join(f"{epoch},{value}\n" for epoch, value in enumerate(values)))


@pytest.mark.parametrize("pruner", ["median", "asha", "none"])
def test_a_trial_that_lags_behind_is_stopped(search, workers, finished, pruner):
    asked = []

    def becomes(job):
        asked.append(job)
        if len(asked) <= 8:

            def good(job):
                epochs(job, [0.9] * 5)
                return finishes(lambda **given: finished(metrics={"val/acc": 0.9}, **given))(job)

            return good

        def bad(job):
            epochs(job, [0.1] * 5)
            return None if pruner != "none" else finishes(finished)(job)

        return bad

    found = run(search(LR, trials=9, becomes=becomes, pruner=pruner), workers)
    last = found.arms[0].trials[-1]
    assert last.state.name == ("COMPLETE" if pruner == "none" else "PRUNED")
    if pruner != "none":
        assert "others were better" in last.user_attrs["outcome"]
        assert not found.outcomes[-1].failed
        assert asked[-1].directory.result().details["outcome"] == "pruned"


def test_mistakes_in_a_row_end_the_search(search, workers, make_job):
    made = search(LR, trials=9)
    made._make_job = lambda chosen, number, label: make_job(number, problem="head.hidden: wrong")
    with pytest.raises(ConfigError, match=r"head.hidden: wrong"):
        run(made, workers)


def test_two_searches_of_one_study_do_not_run_at_once(search, workers, tmp_path):
    with only_one(tmp_path / "study"), pytest.raises(RunError, match="another search works in"):
        run(search(LR, trials=1), workers)
    run(search(LR, trials=1), workers)


def test_names_of_objectives():
    result = Result("done", "f", metrics={"val/acc": 0.5}, params={"trainable": 3}, cost=Cost(fit_seconds=2.0))
    assert objective_value(result, "val/acc") == 0.5
    assert objective_value(result, "cost/fit_seconds") == 2.0
    assert objective_value(result, "params/trainable") == 3
    with pytest.raises(ConfigError, match="a run has val/acc"):
        objective_value(result, "val/accuracy")


@pytest.mark.parametrize(
    ("task", "monitor", "objectives"),
    [
        ("auto", None, {"val/acc": "maximize"}),
        ("multiclass", "val/f1", {"val/f1": "maximize"}),
        ("auto", "val/loss", {"val/loss": "minimize"}),
        ("multilabel", None, {"val/map": "maximize"}),
        ("segmentation", None, {"val/miou": "maximize"}),
        ("regression", None, {"val/loss": "minimize"}),
        ("regression", "val/rmse", {"val/rmse": "minimize"}),
    ],
)
def test_a_search_looks_for_what_chooses_checkpoints(task, monitor, objectives):
    assert usual_objectives(task, monitor) == objectives


@pytest.mark.parametrize("choice", [{"sampler": "grid"}, {"pruner": "all"}, {"budget": "runs"}])
def test_impossible_choices_are_refused(choice):
    with pytest.raises(ConfigError, match="must be"):
        SearchSettings(ACCURACY, **choice)
    with pytest.raises(ConfigError, match="maximize or minimize"):
        SearchSettings({"val/acc": "up"})
    with pytest.raises(ConfigError, match="no longer tested"):
        SearchSettings({"cost/fit_seconds": "minimize", "test/acc": "maximize"})
