"""What a chosen model still takes from validation: a temperature, the thresholds of labels."""

from dataclasses import replace
from typing import Any

import torch

from headstart.config import RunSettings
from headstart.tasks import Multilabel
from headstart.tasks.calibration import best_temperature, best_thresholds, calibration_error
from headstart.tasks.multilabel import USUAL_THRESHOLD
from headstart.tasks.predictions import Predictions, ScoredModel


def calibrate(settings: RunSettings, scored: ScoredModel) -> dict[str, Any]:
    """Fit to validation what was asked for, put it into the task, and score every split again with it.

    Returns: for ``details`` of ``result.json``: the temperature, and of each split calibration error (``ece``) and
        loss, and what they were before.
    """
    task, val = scored.task, scored.predictions["val"]
    told: dict[str, Any] = {}
    if settings.calibrate == "temperature":
        before = {split: _confidence(found) for split, found in scored.predictions.items()}
        task.temperature = best_temperature(task, torch.from_numpy(val.outputs), torch.from_numpy(val.targets))
        _score_again(scored)
        splits = {
            split: {**{f"{name}_before": value for name, value in before[split].items()}, **_confidence(found)}
            for split, found in scored.predictions.items()
        }
        told = {"calibration": {"temperature": task.temperature, **splits}}
    if isinstance(task, Multilabel):
        if settings.thresholds == "validation":
            probabilities = scored.predictions["val"].probabilities
            task.thresholds = tuple(best_thresholds(probabilities, val.targets, USUAL_THRESHOLD))
        else:
            task.thresholds = (float(settings.thresholds),) * len(task.classes)
        _score_again(scored)
    return told


def _score_again(scored: ScoredModel) -> None:
    for split, found in scored.predictions.items():
        outputs, targets = torch.from_numpy(found.outputs), torch.from_numpy(found.targets)
        scored.predictions[split] = replace(
            found,
            probabilities=scored.task.probabilities(outputs).numpy(),
            metrics=scored.task.evaluate(outputs, targets),
        )


def _confidence(found: Predictions) -> dict[str, float]:
    return {"ece": calibration_error(found.probabilities, found.targets), "loss": found.metrics["loss"]}
