"""Who is trained, and for how long, within a budget; the trainings themselves are stood in for."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.ranking.budget import Clock
from headstart.ranking.features import Speed
from headstart.ranking.journal import Journal, Tried
from headstart.ranking.recipes import FINE_TUNING, FROZEN, RUNGS, Arm, survivors
from headstart.ranking.trials import Trials

FINALISTS = [("small", ("backbone=small",)), ("large", ("backbone=large",))]


@dataclass
class World:
    """A clock that only trainings move, and how well and how slowly they go."""

    path: Path
    budget_s: float
    slowness: float = 1.0
    said: list[str] = field(default_factory=list)
    trained: list[tuple[str, int]] = field(default_factory=list)
    time_s: float = 0.0

    def trials(self, monkeypatch: pytest.MonkeyPatch, die_after: int | None = None) -> Trials:
        journal = Journal.open(self.path, "these data")
        journal.speeds = {"small": Speed(0.001, 0.004), "large": Speed(0.01, 0.05)}
        self.time_s = 0.0
        clock = Clock(self.budget_s, journal.spent_s, now=lambda: self.time_s)
        data: Any = SimpleNamespace(sizes={"train": 1000, "val": 200, "test": 200})
        trials = Trials((), "study", data, clock, journal, 5.0, self.said.append)

        def train(arm: Arm, epochs: int) -> Tried:
            if die_after is not None and len(self.trained) >= die_after:
                raise KeyboardInterrupt
            self.trained.append((arm.name, epochs))
            self.time_s += self.slowness * trials.seconds(arm, epochs) / trials._correction(arm)
            score = 0.7 + 0.01 * epochs + 0.05 * (arm.recipe is FINE_TUNING[1]) - 0.02 * (arm.backbone == "large")
            return Tried(arm.name, arm.backbone, arm.recipe.name, epochs, list(arm.overrides(epochs)), score)

        monkeypatch.setattr(trials, "_train", train)
        return trials


@pytest.mark.parametrize("budget", [120.0, 300.0, 600.0, 3000.0])
@pytest.mark.parametrize("slowness", [0.7, 1.0, 1.6])
def test_it_ends_within_its_budget_however_wrong_the_estimates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float, slowness: float
):
    world = World(tmp_path / "advice.json", budget, slowness)
    trials = world.trials(monkeypatch)
    tried = trials.run(FINALISTS)
    assert tried
    assert trials.clock.spent_s <= 1.1 * budget
    if trials.skipped and budget > 120:
        assert trials.clock.spent_s > 0.4 * budget


def test_with_time_enough_the_best_recipe_gets_all_epochs_and_the_others_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = World(tmp_path / "advice.json", 1e6)
    tried = world.trials(monkeypatch).run(FINALISTS)
    best = max(tried, key=lambda one: one.score or 0)
    assert (best.backbone, best.recipe, best.epochs) == ("small", FINE_TUNING[1].name, RUNGS[-1])
    per_round = [sum(epochs == rung for _, epochs in world.trained) for rung in RUNGS]
    assert per_round == [8, 4, 2, 1]
    assert world.trained[:2] == [(f"small, {FROZEN.name}", 0), (f"large, {FROZEN.name}", 0)]


def test_what_had_no_time_is_listed_with_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trials = World(tmp_path / "advice.json", 60.0).trials(monkeypatch)
    trials.run(FINALISTS)
    assert any(name.startswith("large, fine-tune") for name in trials.skipped)
    assert min(trials.skipped.values()) > 10


def test_after_a_kill_nothing_is_trained_twice_and_the_time_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path / "advice.json", 1e6)
    with pytest.raises(KeyboardInterrupt):
        world.trials(monkeypatch, die_after=5).run(FINALISTS)
    spent = world.time_s
    trials = world.trials(monkeypatch)
    assert trials.clock.earlier_s == pytest.approx(spent)
    trials.run(FINALISTS)
    assert len(world.trained) == len(set(world.trained)) == 17


def test_a_journal_of_other_data_or_a_damaged_one_is_not_used(tmp_path: Path):
    journal = Journal.open(tmp_path / "advice.json", "these data")
    journal.tried["a / 2"] = Tried("a", "small", "r", 2, [], 0.5, 3.0)
    journal.speeds["small"] = Speed(0.1, 0.2)
    journal.save(12.0)
    again = Journal.open(tmp_path / "advice.json", "these data")
    assert (again.spent_s, again.tried, again.speeds) == (12.0, journal.tried, journal.speeds)
    assert Journal.open(tmp_path / "advice.json", "other data").tried == {}
    (tmp_path / "advice.json").write_text('{"about": "these data", "tried": 3}', encoding="utf-8")
    assert Journal.open(tmp_path / "advice.json", "these data").spent_s == 0.0


def test_half_survive_and_one_at_least():
    arms = [Arm(str(number), (), FROZEN) for number in range(5)]
    assert survivors([(arm, number / 10) for number, arm in enumerate(arms)]) == [arms[4], arms[3], arms[2]]
    assert survivors([(arms[0], 0.1)]) == arms[:1]
