"""What masks scored, laid out image by image."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from headstart.runs.mask_scores import over_images
from headstart.runs.reader import StoredPredictions, read_runs
from headstart.study.samples import Pairing
from headstart.study.verdict import verdicts
from headstart.tasks import Segmentation

if TYPE_CHECKING:
    from conftest import StudyWriter

CLASSES = ("ground", "tree", "car")
TASK = Segmentation(CLASSES, label_smoothing=0.0, class_weights=None)


def predicted(skill: float, images: int = 60, seed: int = 0) -> tuple[torch.Tensor, StoredPredictions]:
    """Rows of images of which a share ``skill`` of the pixels is right, and what a run would keep of them."""
    truth = np.random.default_rng(7)
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(images):
        mask = truth.choice(3, size=(1, 10, 12), p=truth.dirichlet((6, 2, 1)))
        right = rng.uniform(size=mask.shape) < rng.normal(skill, 0.08)
        outputs = np.eye(3)[np.where(right, mask, rng.integers(0, 3, mask.shape))].transpose(0, 3, 1, 2)
        row, shares = TASK.rows(torch.from_numpy(outputs).float(), torch.from_numpy(mask))
        rows.append((row, shares))
    outputs, targets = (torch.cat(part) for part in zip(*rows, strict=True))
    kept = {name: part.numpy() for name, part in TASK.kept(outputs).items()}
    ids = np.array([f"{number:03d}" for number in range(images)])
    shares = TASK.probabilities(outputs).double().numpy()
    return outputs, StoredPredictions(ids, targets.double().numpy(), shares, CLASSES, **kept)


@pytest.mark.parametrize("metric", ["miou", "acc", "iou_ground", "iou_car"])
def test_the_mean_is_the_score_and_the_spread_is_that_of_the_bootstrap(metric: str):
    outputs, found = predicted(0.7)
    values = over_images(found, metric)
    assert values is not None
    score = TASK.evaluate(outputs, torch.zeros(len(outputs), 3))[metric]
    assert values.mean() == pytest.approx(score, abs=1e-9)
    rng = np.random.default_rng(0)
    drawn = [
        TASK.evaluate(outputs[rng.integers(0, len(outputs), len(outputs))], torch.zeros(1))[metric] for _ in range(600)
    ]
    assert values.std(ddof=1) / np.sqrt(len(values)) == pytest.approx(np.std(drawn), rel=0.12)


def test_other_metrics_are_not_known_image_by_image():
    _, found = predicted(0.7, images=5)
    assert over_images(found, "loss") is None
    assert over_images(found, "iou_cow") is None


def test_a_class_that_nobody_saw_is_left_out():
    _, found = predicted(0.9, images=8)
    blank = np.zeros((8, 1))
    hits = np.hstack([found.hits, blank.astype(np.int64)])  # type: ignore[list-item]
    more = replace(
        found,
        hits=hits,
        classes=(*CLASSES, "cow"),
        targets=np.hstack([found.targets, blank]),
        probabilities=np.hstack([found.probabilities, blank]),
    )
    values, plain = over_images(more, "miou"), over_images(found, "miou")
    assert values is not None
    assert plain is not None
    np.testing.assert_allclose(values, plain)
    assert over_images(more, "iou_cow") is None


def write(path: Path, outputs: torch.Tensor, found: StoredPredictions) -> None:
    """Turn a synthetic run into one of masks."""
    counts = {"hits": found.hits, "pixels": found.pixels}
    for split in ("val", "test"):
        parts = {"ids": found.ids, "targets": found.targets, "probabilities": found.probabilities}
        np.savez(path / f"predictions_{split}.npz", classes=np.asarray(CLASSES), **parts, **counts)  # type: ignore[arg-type]
    result = json.loads((path / "result.json").read_text())
    scores = TASK.evaluate(outputs, torch.zeros(len(outputs), 3))
    result["metrics"] = {f"{split}/{name}": value for split in ("val", "test") for name, value in scores.items()}
    result["details"] |= {"task": "segmentation", "monitor": "val/miou"}
    (path / "result.json").write_text(json.dumps(result))


def test_a_report_counts_the_images_of_masks(writer: "StudyWriter"):
    """Five seeds agree to a hair on these images; others of the same kind need not."""
    for seed in range(1, 6):
        for strategy, skill in (("freeze", 0.70), ("full", 0.71)):
            write(writer.run(strategy, seed), *predicted(skill, images=20, seed=100 * seed + (strategy == "full")))
    runs = read_runs(writer.root)
    cells = {name: {run.seed: run for run in runs if run.choices["strategy"] == name} for name in ("freeze", "full")}
    pairing = Pairing("test/miou")
    assert pairing.scope(runs).images == 20
    found = pairing.compare(cells["full"], cells["freeze"])
    assert found is not None
    assert found.lasting > 0  # of the images
    wanted = np.mean([cells["full"][s].metrics["test/miou"] - cells["freeze"][s].metrics["test/miou"] for s in "12345"])
    assert found.mean == pytest.approx(wanted, abs=1e-9)
    assert found.low is not None
    assert found.high is not None
    assert found.low < wanted < found.high
    _, [(analysis, words)] = verdicts(runs)
    assert analysis.metric.name == "test/miou"
    assert "20 test images" in " ".join([words.headline, *words.points])
