"""Every kind of target with every depth of training: better than guessing, and scored as scikit-learn scores.

Masks have the same in ``test_segmentation.py``, against loops over pixels.
"""

import colorsys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from headstart.runs.result import Result

pytestmark = pytest.mark.slow

IMAGES, HUES = 150, ("red", "green", "blue")
#: Columns of the table that each task learns.
TARGETS = {
    "binary": "[bright]",
    "multiclass": "[hue]",
    "multilabel": "[names]",
    "regression": "[brightness,hue_number]",
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured noise: three hues, and how bright it is."""
    folder, rng = tmp_path_factory.mktemp("coloured"), np.random.default_rng(0)
    lines = ["path,hue,bright,names,brightness,hue_number,split"]
    for number in range(IMAGES):
        hue, value = rng.integers(0, 3), rng.uniform(0.3, 1.0)
        colour = 255 * np.array(colorsys.hsv_to_rgb(hue / 3 + rng.normal(0, 0.03), 0.8, value))
        pixels = np.clip(colour + rng.normal(0, 25, (24, 24, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
        bright = "yes" if value > 0.65 else "no"
        names = "|".join([HUES[hue], *(["bright"] if bright == "yes" else [])])
        split = ("train", "train", "train", "val", "test")[number % 5]
        lines.append(f"{number:03d}.png,{HUES[hue]},{bright},{names},{100 * value:.3f},{hue + value / 2:.3f},{split}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


@pytest.mark.parametrize("strategy", ["freeze", "partial", "full"])
@pytest.mark.parametrize("task", TARGETS)
def test_it_beats_guessing_and_scores_as_scikit_learn(task: str, strategy: str, train: Callable, table: Path):
    run, result = train(
        "datamodule=csv", "datamodule.shots=null", "datamodule.val_fraction=0.2", "datamodule.test_fraction=0",
        f"datamodule.manifest={table}", f"datamodule.target_columns={TARGETS[task]}", f"task={task}",
        "datamodule.augment=none", f"strategy={strategy}", "optimizer.lr=1e-3", "trainer.max_epochs=8",
    )  # fmt: skip
    for split in ("val", "test"):
        with np.load(run.predictions_file(split)) as stored:
            targets, values = stored["targets"], stored["probabilities"].astype(np.float64)
        wanted = SCORES[task](targets, values, result)
        own = {name.partition("/")[2]: value for name, value in result.metrics.items() if name.startswith(f"{split}/")}
        assert own.keys() == wanted.keys()
        for name, value in wanted.items():
            assert own[name] == pytest.approx(value, rel=2e-4, abs=2e-5), name
    BETTER[task](targets, result.metrics)


def of_classes(targets: np.ndarray, values: np.ndarray, result: Result) -> dict[str, float]:
    chances = values / values.sum(axis=1, keepdims=True)  # of 32 bits, which scikit-learn finds too coarse
    said, one_hot = chances.argmax(axis=1), np.eye(chances.shape[1])[targets]
    columns = [1] if chances.shape[1] == 2 else range(chances.shape[1])
    return {
        "loss": metrics.log_loss(targets, chances),
        "acc": metrics.accuracy_score(targets, said),
        "f1": metrics.f1_score(targets, said, average="macro"),
        "balanced_acc": metrics.balanced_accuracy_score(targets, said),
        "kappa": metrics.cohen_kappa_score(targets, said),
        "auroc": float(np.mean([metrics.roc_auc_score(one_hot[:, c], chances[:, c]) for c in columns])),
        "ap": float(np.mean([metrics.average_precision_score(one_hot[:, c], chances[:, c]) for c in columns])),
    }


def of_labels(targets: np.ndarray, values: np.ndarray, result: Result) -> dict[str, float]:
    said = values >= np.array(result.details["task_record"]["thresholds"])
    loss = np.mean([metrics.log_loss(targets[:, c], values[:, c], labels=[0, 1]) for c in range(targets.shape[1])])
    return {
        "loss": float(loss),
        "map": metrics.average_precision_score(targets, values, average="macro"),
        "f1": metrics.f1_score(targets, said, average="macro"),
    }


def of_numbers(targets: np.ndarray, values: np.ndarray, result: Result) -> dict[str, float]:
    scale = np.array(result.details["task_record"]["std"])
    found = {
        "loss": metrics.mean_squared_error(targets / scale, values / scale),
        "nrmse": metrics.root_mean_squared_error(targets / scale, values / scale),
        "mae": metrics.mean_absolute_error(targets, values),
        "rmse": metrics.root_mean_squared_error(targets, values),
        "r2": metrics.r2_score(targets, values),
    }
    for place, name in enumerate(result.data["classes"]):
        one, other = targets[:, place], values[:, place]
        found |= {
            f"mae_{name}": metrics.mean_absolute_error(one, other),
            f"rmse_{name}": metrics.root_mean_squared_error(one, other),
            f"r2_{name}": metrics.r2_score(one, other),
        }
    return found


def better_classes(targets: np.ndarray, found: dict[str, float]) -> None:
    most = np.bincount(targets).max() / len(targets)
    assert found["test/acc"] > most + 0.2
    assert found["test/balanced_acc"] > 1 / len(np.unique(targets)) + 0.2


def better_labels(targets: np.ndarray, found: dict[str, float]) -> None:
    assert found["test/map"] > targets.mean(axis=0).mean() + 0.2  # whoever orders by chance has the share


def better_numbers(targets: np.ndarray, found: dict[str, float]) -> None:
    assert found["test/nrmse"] < 0.75  # the mean of the training images has about 1
    assert found["test/r2"] > 0.3


SCORES: dict[str, Callable] = {
    "binary": of_classes,
    "multiclass": of_classes,
    "multilabel": of_labels,
    "regression": of_numbers,
}
BETTER: dict[str, Callable] = {
    "binary": better_classes,
    "multiclass": better_classes,
    "multilabel": better_labels,
    "regression": better_numbers,
}
