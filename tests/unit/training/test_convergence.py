"""What a result says of a training's end."""

import pytest

from headstart.training.convergence import fit_record


def rows(losses):
    return [{"epoch": float(epoch), "train/loss": loss} for epoch, loss in enumerate(losses)]


def test_a_training_that_still_falls_is_told_from_one_at_rest():
    falling, resting = [1 / (1 + epoch) for epoch in range(8)], [1.0, 0.2, *[0.1] * 6]
    found = fit_record(rows(falling), 7)
    assert found == {
        "best_epoch": 7,
        "last_epoch": 7,
        "train_loss_first": 1.0,
        "train_loss_last": 1 / 8,
        "train_loss_fall": pytest.approx(1 - (1 / 7 + 1 / 8) / (1 / 5 + 1 / 6)),
    }
    assert fit_record(rows(resting), 3)["train_loss_fall"] == pytest.approx(0.0)


def test_short_trainings_have_what_there_is():
    assert fit_record(rows([2.0, 1.0]), 1)["train_loss_fall"] == 0.5
    assert fit_record(rows([2.0]), 0)["train_loss_fall"] is None
    assert fit_record([], None) == {}


def test_what_was_minimised_counts():
    found = [{**row, "train/objective": 2 * row["train/loss"] + 1} for row in rows([2.0, 1.0])]
    assert fit_record(found, 1)["train_loss_fall"] == pytest.approx((5 - 3) / 5)


def test_a_loss_that_became_nothing_divides_nothing():
    assert fit_record(rows([1.0, 0.0, 0.0]), 2)["train_loss_fall"] == 0.0
