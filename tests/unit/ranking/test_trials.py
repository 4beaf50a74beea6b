"""Who is trained, and for how long, within a budget; the trainings themselves are stood in for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.ranking import trials as trials_module
from headstart.ranking.budget import Clock, TimeUp, ends_in
from headstart.ranking.estimates import Estimates, best_of
from headstart.ranking.features import Speed
from headstart.ranking.journal import Journal, Tried
from headstart.ranking.recipes import FINE_TUNING, FROZEN, RUNGS, Contender, rounds, survivors
from headstart.ranking.trials import Trials
from headstart.study.tuning import read_tuning

FINALISTS = [("small", ("backbone=small",)), ("large", ("backbone=large",))]


@dataclass
class World:
    """A clock that only trainings move, and how well and how slowly they go."""

    path: Path
    budget_s: float
    slowness: float = 1.0
    said: list[str] = field(default_factory=list)
    trained: list[tuple[str, int]] = field(default_factory=list)
    again: list[tuple[str, int, int]] = field(default_factory=list)
    lucky: str = ""
    failing_again: str = ""
    time_s: float = 0.0
    probed: dict[str, float] = field(default_factory=dict)

    def trials(self, monkeypatch: pytest.MonkeyPatch, die_after: int | None = None) -> Trials:
        journal = Journal.open(self.path, "these data")
        journal.speeds = {"small": Speed(0.001, 0.004), "large": Speed(0.01, 0.05)}
        self.time_s = 0.0
        clock = Clock(self.budget_s, journal.spent_s, now=lambda: self.time_s)
        data: Any = SimpleNamespace(sizes={"train": 1000, "val": 200, "test": 200}, batch_size=20)
        estimates = Estimates(self.probed, 800 if self.probed else 0, 200)
        trials = Trials((), "study", data, clock, journal, 5.0, self.said.append, estimates=estimates)

        def train(arm: Contender, epochs: int, part: Sequence[str], later: int = 0) -> Tried:
            if die_after is not None and len(self.trained) + len(self.again) >= die_after:
                raise KeyboardInterrupt
            if later:
                self.again.append((arm.name, epochs, later))
            else:
                self.trained.append((arm.name, epochs))
            taken = self.slowness * trials.seconds(arm, epochs) / trials._correction(arm)
            if epochs and taken > trials._left_s:
                self.time_s += trials._left_s
                raise TimeUp
            self.time_s += taken
            if later and arm.name == self.failing_again:
                return Tried(arm.name, arm.backbone, arm.recipe.name, epochs, [], None, error="diverged")
            score = 0.7 + 0.01 * epochs + 0.05 * (arm.recipe is FINE_TUNING[1]) - 0.02 * (arm.backbone == "large")
            score += 0.03 * (("optimizer.lr", "0.001") in arm.point)
            score += 0.4 * (arm.name == self.lucky and epochs == RUNGS[0] and not later)
            return Tried(arm.name, arm.backbone, arm.recipe.name, epochs, list(arm.overrides(epochs)), score)

        monkeypatch.setattr(trials, "_train", train)
        return trials


@pytest.mark.parametrize("budget", [120.0, 300.0, 600.0, 3000.0])
@pytest.mark.parametrize("slowness", [0.7, 1.0, 1.6, 5.0])
def test_it_ends_within_its_budget_however_wrong_the_estimates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float, slowness: float
):
    world = World(tmp_path / "advice.json", budget, slowness)
    trials = world.trials(monkeypatch)
    tried = trials.run(FINALISTS)
    assert tried
    assert trials.clock.spent_s <= 1.1 * budget
    if trials.skipped and budget > 120:
        assert trials.clock.spent_s > 0.8 * budget


def test_with_time_enough_the_best_arm_gets_all_epochs_and_the_others_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = World(tmp_path / "advice.json", 1e6)
    tried = world.trials(monkeypatch).run(FINALISTS)
    best = max(tried, key=lambda one: one.score or 0)
    assert (best.backbone, best.recipe, best.epochs) == ("small", FINE_TUNING[1].name, RUNGS[-1])
    assert "optimizer.lr=0.001" in best.overrides
    per_round = [sum(epochs == rung for _, epochs in world.trained) for rung in RUNGS]
    assert per_round == [4 * 3, 2, 1, 1, 1]
    assert world.trained[:2] == [(f"small, {FROZEN.name}", 0), (f"large, {FROZEN.name}", 0)]


@pytest.mark.parametrize("budget", [200.0, 300.0, 500.0, 700.0, 1000.0])
@pytest.mark.parametrize("slowness", [1.0, 1.3, 2.0, 3.0])
def test_each_arm_gets_as_many_trials_as_any_other_and_goes_on_with_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float, slowness: float
):
    world = World(tmp_path / "advice.json", budget, slowness)
    world.trials(monkeypatch).run(FINALISTS)
    told = read_tuning(tmp_path)
    numbers = [len(arm["trials"]) for arm in told["arms"]]
    assert len(set(numbers)) == 1
    assert (told["study"], told["metric"]) == ("study-tuning", "val/acc")
    rate = {1: "0.0003"}.get(numbers[0], "0.001")
    assert {arm["chosen"]["optimizer.lr"] for arm in told["arms"]} == {rate}
    assert all(name.endswith(f"lr {rate}") for name, epochs in world.trained if epochs > RUNGS[0])


def test_a_rate_that_somebody_chose_is_not_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path / "advice.json", 1e6)
    trials = world.trials(monkeypatch)
    trials.overrides = ["optimizer.lr=0.02"]
    trials.run(FINALISTS)
    assert sum(epochs == RUNGS[0] for _, epochs in world.trained) == 4


def test_a_training_that_takes_too_long_is_stopped_in_time_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trials = World(tmp_path / "advice.json", 1e6).trials(monkeypatch)
    arm = Contender("small", ("backbone=small",), FINE_TUNING[0])
    estimate = trials.seconds(arm, 2)
    trials.clock = Clock(1.3 * estimate + 5.0, now=lambda: 0.0)
    monkeypatch.setattr(trials_module, "ends_in", lambda seconds: ends_in(seconds / estimate / 10))
    monkeypatch.setattr(trials, "_train", lambda *_: time.sleep(20))
    assert trials._try(arm, 2) is None
    assert trials.journal.tried == {}
    assert trials.skipped == {f"{arm.name} for 2 epochs": estimate}


def test_without_time_for_all_images_the_first_is_judged_on_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path / "advice.json", 6.0)
    trials = world.trials(monkeypatch)
    trials.part = ["datamodule.fraction=0.2"]
    trials.run(FINALISTS)
    assert list(trials.journal.tried) == [f"small, {FROZEN.name} / 0 / datamodule.fraction=0.2"]
    trials = World(tmp_path / "other.json", 1e6).trials(monkeypatch)
    trials.part = ["datamodule.fraction=0.2"]
    trials.run(FINALISTS)
    assert not any("fraction" in key for key in trials.journal.tried)


def test_what_had_no_time_is_listed_with_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trials = World(tmp_path / "advice.json", 60.0).trials(monkeypatch)
    trials.run(FINALISTS)
    assert any(name.startswith("large, fine-tuning") for name in trials.skipped)
    assert min(trials.skipped.values()) > 10


def test_after_a_kill_nothing_is_trained_twice_and_the_time_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path / "advice.json", 1e6)
    with pytest.raises(KeyboardInterrupt):
        world.trials(monkeypatch, die_after=5).run(FINALISTS)
    spent = world.time_s
    trials = world.trials(monkeypatch)
    assert trials.clock.earlier_s == pytest.approx(spent)
    trials.run(FINALISTS)
    assert len(world.trained) == len(set(world.trained)) == 2 + 4 * 3 + 2 + 1 + 1 + 1


def test_a_journal_of_other_data_or_a_damaged_one_is_not_used(tmp_path: Path):
    journal = Journal.open(tmp_path / "advice.json", "these data")
    journal.tried["a / 2"] = Tried("a", "small", "r", 2, [], 0.5, 3.0)
    journal.speeds["small"] = Speed(0.1, 0.2)
    journal.save(12.0)
    again = Journal.open(tmp_path / "advice.json", "these data")
    assert (again.spent_s, again.tried, again.speeds) == (12.0, journal.tried, journal.speeds)
    assert Journal.open(tmp_path / "advice.json", "other data").tried == {}
    whole = (tmp_path / "advice.json").read_text(encoding="utf-8")
    (tmp_path / "advice.json").write_text(whole.replace('"score": 0.5', '"score": 0.9'), encoding="utf-8")
    assert Journal.open(tmp_path / "advice.json", "these data").tried == {}
    (tmp_path / "advice.json").write_text('{"about": "these data", "tried": 3}', encoding="utf-8")
    assert Journal.open(tmp_path / "advice.json", "these data").spent_s == 0.0


def test_luck_with_the_validation_images_is_taken_off_before_backbones_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # On 200 validation images the frozen features of "small" have 70 % right and those of "large" 68 %; on 800 training
    # images, in cross-validation, it was 60 and 71 %.
    world = World(tmp_path / "advice.json", 3000.0, probed={"small": 0.60, "large": 0.71})
    trials = world.trials(monkeypatch)
    tried = trials.run(FINALISTS)
    assert trials.estimates.luck("small", tried) == pytest.approx(0.8 * 0.10)
    assert trials.estimates.luck("large", tried) == pytest.approx(0.8 * -0.03)
    assert trials.estimates.luck("a third", tried) == pytest.approx(0.8 * 0.07 / 2)
    frozen = {one.backbone: one for one in tried if not one.epochs}
    assert frozen["small"].estimate == pytest.approx((200 * 0.70 + 800 * 0.60) / 1000)
    assert frozen["large"].estimate == pytest.approx((200 * 0.68 + 800 * 0.71) / 1000)
    longest = max(tried, key=lambda one: one.epochs)
    assert longest.backbone == best_of(tried).backbone == "large"
    assert {one.backbone for one in tried if one.epochs == RUNGS[0]} == {"small", "large"}


def test_what_time_is_left_goes_to_the_others_in_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path / "advice.json", 1e6)
    world.trials(monkeypatch).run(FINALISTS[:1], FINALISTS[1:])
    names = [name.partition(",")[0] for name, _ in world.trained]
    first = names.index("large")
    assert set(names[:first]) == {"small"}
    assert set(names[first:]) == {"large"}
    assert world.trained[first] == ("large, frozen features", 0)
    told = read_tuning(tmp_path)["arms"]
    assert [arm["arm"].partition(",")[0] for arm in told] == ["small", "small", "large", "large"]
    assert {len(arm["trials"]) for arm in told} == {3}


@pytest.mark.parametrize("budget", [400.0, 500.0, 600.0, 800.0, 1200.0])
@pytest.mark.parametrize("slowness", [1.0, 1.4, 3.0])
def test_the_others_get_as_many_trials_as_the_finalists_or_no_place_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float, slowness: float
):
    World(tmp_path / "advice.json", budget, slowness).trials(monkeypatch).run(FINALISTS[1:], FINALISTS[:1])
    assert len({len(arm["trials"]) for arm in read_tuning(tmp_path).get("arms", [])}) <= 1


def test_with_little_time_every_network_is_fine_tuned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path / "advice.json", 195.0)
    world.trials(monkeypatch).run(FINALISTS)
    assert [name for name, epochs in world.trained if epochs == RUNGS[0]] == [
        "small, fine-tuning, lr 0.0003",
        "large, fine-tuning, lr 0.0003",
    ]


def test_the_best_are_repeated_and_a_lucky_one_falls_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lucky = "large, fine-tuning, lr 0.0001"
    world = World(tmp_path / "advice.json", 1e6, lucky=lucky)
    trials = world.trials(monkeypatch)
    tried = trials.run(FINALISTS)
    assert max(tried, key=lambda one: one.score or 0).arm == lucky
    assert best_of(tried).arm == "small, fine-tuning of two stages, lr 0.001"
    best = sorted(tried, key=lambda one: -(one.estimate or 0))[:3]
    assert [len(one.again) for one in best] == [7, 7, 7]
    assert sorted(later for name, epochs, later in world.again if (name, epochs) == (best[0].arm, 32)) == [*range(1, 8)]


def test_repetitions_survive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = World(tmp_path / "whole.json", 1e6)
    expected = whole.trials(monkeypatch).run(FINALISTS)
    world = World(tmp_path / "advice.json", 1e6)
    with pytest.raises(KeyboardInterrupt):
        world.trials(monkeypatch, die_after=len(whole.trained) + 5).run(FINALISTS)
    trials = world.trials(monkeypatch)
    tried = trials.run(FINALISTS)
    assert (world.trained, world.again) == (whole.trained, whole.again)
    assert [one.again for one in tried] == [one.again for one in expected]


def test_one_that_fails_from_another_seed_comes_last_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    best = "small, fine-tuning of two stages, lr 0.001"
    world = World(tmp_path / "advice.json", 1e6, failing_again=best)
    tried = world.trials(monkeypatch).run(FINALISTS)
    [failed] = [one for one in tried if one.unstable and one.epochs == RUNGS[-1]]
    assert failed.arm == best
    assert failed == max(tried, key=lambda one: one.estimate or 0)
    chosen = best_of(tried)
    assert chosen is not None
    assert (chosen.unstable, len(chosen.again)) == (False, 7)
    again = len(world.again)
    world.trials(monkeypatch).run(FINALISTS)
    assert len(world.again) == again


@pytest.mark.parametrize(("smaller", "larger"), [(140.0, 300.0), (200.0, 400.0), (300.0, 700.0), (300.0, 1e6)])
def test_a_larger_budget_goes_on_from_a_smaller_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smaller: float, larger: float
):
    world = World(tmp_path / "advice.json", smaller)
    before = world.trials(monkeypatch)
    before.run(FINALISTS)
    tuned = {arm["arm"]: len(arm["trials"]) for arm in read_tuning(tmp_path)["arms"]}
    world.budget_s = larger
    after = world.trials(monkeypatch)
    tried = after.run(FINALISTS)
    now = {arm["arm"]: len(arm["trials"]) for arm in read_tuning(tmp_path)["arms"]}
    assert all(now[arm] >= number for arm, number in tuned.items())
    assert len(set(now.values())) == 1
    assert len(world.trained) == len(set(world.trained))
    assert after.clock.spent_s <= 1.05 * larger
    assert all(seconds > 0 for seconds in after.skipped.values())
    assert max(one.estimate or 0 for one in tried) >= max(one.estimate or 0 for one in before.journal.tried.values())


def test_what_is_left_at_the_end_goes_to_a_shorter_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path / "advice.json", 90.0)
    trials = world.trials(monkeypatch)
    trials._rounds = (8, 16, 32)
    trials.run(FINALISTS)
    assert any(1 < epochs < 8 for _, epochs in world.trained)
    assert trials.clock.left_s - trials.reserve_s < 0.1 * 90


def test_the_same_call_again_finds_all_there_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path / "advice.json", 400.0)
    first = world.trials(monkeypatch)
    chosen = best_of(first.run(FINALISTS))
    done = len(world.trained) + len(world.again)
    second = world.trials(monkeypatch)
    assert best_of(second.run(FINALISTS)) == chosen
    assert len(world.trained) + len(world.again) == done
    assert min(second.skipped.values()) > 1


def test_a_network_too_slow_for_the_first_round_is_fine_tuned_for_as_long_as_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = World(tmp_path / "advice.json", 70.0)
    trials = world.trials(monkeypatch)
    trials._rounds = (16, 32)
    trials.run(FINALISTS[:1])
    assert [(name, epochs) for name, epochs in world.trained if epochs] == [("small, fine-tuning, lr 0.0003", 11)]


def test_repetitions_differ_in_their_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trials = World(tmp_path / "advice.json", 1e6).trials(monkeypatch)
    trained = []

    def train(resolved: Any) -> Any:
        trained.append(resolved)
        cost = SimpleNamespace(total_seconds=1.0)
        return SimpleNamespace(metrics={"val/acc": 0.5}, path=tmp_path, result=SimpleNamespace(cost=cost))

    monkeypatch.setattr(trials_module, "train", train)
    trials.overrides = ["datamodule=digits", "seed=5", f"paths.output_dir={tmp_path}"]
    arm = Contender("resnet18", ("backbone=resnet18",), FINE_TUNING[0]).at((("optimizer.lr", "0.0003"),))
    found = [Trials._train(trials, arm, 8, (), later) for later in (0, 2)]
    assert [run.settings.seed for run in trained] == [5, 7]
    assert found[0].overrides == found[1].overrides
    assert "seed=7" not in found[1].overrides


def test_the_first_round_has_some_steps_even_of_few_images():
    assert rounds(10_000, 32) == RUNGS == (2, 4, 8, 16, 32)
    assert rounds(400, 32) == (4, 8, 16, 32)
    assert rounds(160, 32) == (8, 16, 32)
    assert rounds(20, 32) == (8, 16, 32)


def test_without_cross_validation_validation_alone_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trials = World(tmp_path / "advice.json", 3000.0).trials(monkeypatch)
    tried = trials.run(FINALISTS)
    assert trials.estimates.luck("small", tried) == 0.0
    assert [one.estimate for one in tried] == [one.mean for one in tried]
    assert best_of(tried).backbone == "small"


def test_half_survive_and_one_at_least():
    arms = [Contender(str(number), (), FROZEN) for number in range(5)]
    assert survivors([(arm, number / 10) for number, arm in enumerate(arms)]) == [arms[4], arms[3], arms[2]]
    assert survivors([(arms[0], 0.1)]) == arms[:1]
