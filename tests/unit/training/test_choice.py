"""How much the choice of an epoch flatters, where the truth is known."""

import numpy as np
import pytest
import torch

from headstart.training.choice import EpochChoice, optimism


@pytest.mark.parametrize("shared", [0.0, 0.6])
@pytest.mark.parametrize("images", [60, 240])
def test_optimism_is_what_the_best_of_equal_epochs_gains_by_chance(images: int, shared: float) -> None:
    random = np.random.default_rng(images)
    found, true = [], []
    for _ in range(60):
        # Every epoch is right with 80 %; of a share of the images all epochs say the same.
        alike = random.random(images) < shared
        right = np.where(alike, random.random(images) < 0.8, random.random((12, images)) < 0.8)
        found.append(optimism(right))
        true.append((right.mean(axis=1) - np.where(alike, right[0], 0.8).mean()).max())
    assert np.mean(found) == pytest.approx(np.mean(true), abs=0.007)


def test_an_epoch_that_is_truly_the_best_is_flattered_by_nothing() -> None:
    random = np.random.default_rng(0)
    chances = np.array([0.3, 0.5, 0.95])
    assert optimism(random.random((3, 400)) < chances[:, None]) == pytest.approx(0.0, abs=0.002)


def test_what_was_noted_goes_on_after_an_interruption() -> None:
    epochs = torch.rand(5, 37) < 0.7
    whole, first, second = EpochChoice(), EpochChoice(), EpochChoice()
    for right in epochs:
        whole.note(right)
    for right in epochs[:3]:
        first.note(right)
    second.load_state_dict(first.state_dict())
    for right in epochs[3:]:
        second.note(right)
    assert second.record() == whole.record()
    assert whole.record()["choice"]["epochs"] == 5


def test_a_single_epoch_was_not_chosen() -> None:
    choice = EpochChoice()
    assert choice.record() == {}
    choice.note(torch.ones(9, dtype=torch.bool))
    assert choice.record() == {}
    fresh = EpochChoice()
    fresh.load_state_dict(EpochChoice().state_dict())
    assert fresh.record() == {}
