"""How trainings are compared."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart.ranking import estimates as estimates_module
from headstart.ranking.estimates import Estimates, best_of, seed_deviation
from headstart.ranking.journal import Tried


def tried(name: str, epochs: int, score: float | None, *again: float, **fields: Any) -> Tried:
    return Tried(name, "net", name, epochs, [], score, again=list(again), **fields)


def answers(monkeypatch: pytest.MonkeyPatch, right: dict[str, np.ndarray]) -> None:
    """Let runs have predicted so."""

    def read(path: Any) -> Any:
        found = right[str(path)]
        ids = np.array([f"{place:04d}" for place in range(len(found))])
        stored = SimpleNamespace(ids=ids, probabilities=np.eye(2)[found.astype(int)], targets=np.ones(len(ids)))
        return SimpleNamespace(predictions=lambda split: stored)

    monkeypatch.setattr(estimates_module, "read_run", read)


@pytest.mark.parametrize("follows", [0.0, 0.4, 1.0])
def test_of_the_luck_of_frozen_features_fine_tuning_has_as_much_as_it_answers_alike(
    monkeypatch: pytest.MonkeyPatch, follows: float
):
    random = np.random.default_rng(0)
    frozen = (random.random(4000) < 0.8).astype(float)
    tuned = np.where(random.random(4000) < follows, frozen, random.random(4000) < 0.8)
    answers(monkeypatch, {"frozen": frozen, "tuned": tuned})
    runs = [
        tried("frozen", 0, float(frozen.mean()), path="frozen"),
        tried("tuned", 4, float(tuned.mean()), path="tuned"),
    ]
    estimates = Estimates({"net": 0.7}, 4000, 4000)
    estimates.update(runs)
    luck = 0.5 * (frozen.mean() - 0.7)
    assert estimates.share(runs) == pytest.approx(follows, abs=0.04)
    assert runs[0].estimate == pytest.approx(frozen.mean() - luck)
    assert runs[1].estimate == pytest.approx(tuned.mean() - follows * luck, abs=0.003)


def test_the_correction_makes_estimates_more_exact_than_scores():
    # What a fine-tuned network has right on few images, and what it has on all: 200 draws of the few.
    random = np.random.default_rng(1)
    frozen = random.random(20_000) < 0.7
    tuned = np.where(random.random(20_000) < 0.5, frozen, random.random(20_000) < 0.9)
    errors = []
    for _ in range(200):
        judged, trained = np.split(random.permutation(20_000)[:480], [80])
        runs = [tried("frozen", 0, float(frozen[judged].mean())), tried("tuned", 4, float(tuned[judged].mean()))]
        estimates = Estimates({"net": float(frozen[trained].mean())}, 400, 80)
        estimates.share = lambda runs: 0.5  # type: ignore[method-assign]
        estimates.update(runs)
        errors.append([(runs[1].score or 0) - tuned.mean(), (runs[1].estimate or 0) - tuned.mean()])
    plain, corrected = np.square(errors).mean(axis=0) ** 0.5
    assert corrected < 0.95 * plain


def test_seeds_leave_an_error_that_counts():
    steady, lucky = tried("steady", 8, 0.93, 0.95, 0.94, 0.92, 0.96), tried("lucky", 8, 0.945)
    frozen = tried("frozen", 0, 0.90)
    runs = [frozen, steady, lucky]
    Estimates().update(runs)
    deviation = seed_deviation(runs)
    assert deviation == pytest.approx(np.std([0.93, 0.95, 0.94, 0.92, 0.96], ddof=1))
    assert (frozen.seed_error, lucky.seed_error) == (0.0, deviation)
    assert steady.seed_error == pytest.approx(deviation / 5**0.5)
    assert lucky.estimate > steady.estimate  # type: ignore[operator]
    assert best_of(runs) is steady
    assert best_of([frozen, lucky]) is lucky


def test_without_repetitions_the_best_score_wins_and_of_equal_ones_the_cheapest_of_all_images():
    runs = [
        tried("part", 0, 0.9, part=True, seconds=1.0),
        tried("slow", 4, 0.9, seconds=9.0),
        tried("fast", 4, 0.9, seconds=3.0),
        tried("failed", 4, None),
    ]
    Estimates().update(runs)
    assert seed_deviation(runs) == 0.0
    assert best_of(runs) is runs[2]
    assert best_of(runs[3:]) is None
