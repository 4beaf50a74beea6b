"""Differences between two models on the same images, against textbook answers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from headstart.errors import DataError
from headstart.inference.comparison import compare
from headstart.inference.evaluate import Evaluation
from headstart.tasks import build_task

TASK = build_task("multiclass", ("a", "b"))


def evaluation(right: np.ndarray) -> Evaluation:
    """Of two classes, right where it says so."""
    targets = torch.arange(len(right)) % 2
    said = torch.where(torch.from_numpy(right), targets, 1 - targets)
    outputs = torch.nn.functional.one_hot(said, 2).float() * 3
    ids, probabilities = [str(place) for place in range(len(right))], TASK.probabilities(outputs).numpy()
    return Evaluation("new", "all", {}, ids, targets.numpy(), probabilities, [], outputs, TASK.classes)


def test_the_interval_of_two_accuracies_is_that_of_discordant_pairs():
    first, second = np.arange(400) < 340, np.arange(400) >= 100
    found = compare("other", (TASK, evaluation(first)), (TASK, evaluation(second))).metrics["acc"]
    gain, loss = int((first & ~second).sum()), int((~first & second).sum())
    assert (gain, loss) == (100, 60)
    difference = (gain - loss) / 400
    assert found.first - found.second == pytest.approx(difference)
    half = 1.96 * math.sqrt(gain + loss - (gain - loss) ** 2 / 400) / 400
    assert found.low == pytest.approx(difference - half, abs=0.003)
    assert found.high == pytest.approx(difference + half, abs=0.003)


def test_other_metrics_see_the_same_draws():
    right = np.random.default_rng(0).random(200) < 0.8
    found = compare("other", (TASK, evaluation(right)), (TASK, evaluation(right))).metrics
    assert found["loss"].low == found["loss"].high == 0
    better = compare("other", (TASK, evaluation(np.ones(200, bool))), (TASK, evaluation(right))).metrics["loss"]
    assert better.low < better.first - better.second < better.high < 0


def test_other_images_are_not_compared():
    found = evaluation(np.ones(4, bool))
    with pytest.raises(DataError, match="other takes other images of new"):
        compare("other", (TASK, found), (TASK, replace(found, ids=["x"] * 4)))
