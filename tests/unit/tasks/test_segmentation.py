"""A class for every pixel: the loss against torch's own, the metrics against loops over pixels."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from headstart.data.records import IGNORED
from headstart.tasks import Segmentation, build_task
from headstart.tasks.predictions import EpochOutputs

CLASSES = ("ground", "tree", "car")


@pytest.fixture
def task() -> Segmentation:
    return Segmentation(CLASSES, label_smoothing=0.0, class_weights=None)


def some(images: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs at half the size of the masks; cars are rare and some pixels do not count."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (images, 12, 10), generator=generator)
    masks[masks == 2] = torch.randint(1, 3, ((masks == 2).sum(),), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.1] = IGNORED
    outputs = torch.randn(images, 3, 6, 5, generator=generator)
    return outputs, masks.to(torch.uint8)


def scored(task: Segmentation, outputs: torch.Tensor, masks: torch.Tensor, batch: int) -> dict[str, float]:
    kept = EpochOutputs()
    for start in range(0, len(masks), batch):
        part = slice(start, start + batch)
        kept.add(*task.rows(outputs[part], masks[part]), torch.arange(len(masks))[part])
    return kept.gather(task).metrics


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_metrics_are_those_of_a_loop_over_all_pixels(task: Segmentation, batch: int):
    outputs, masks = some()
    predicted = F.interpolate(outputs, size=masks.shape[1:], mode="bilinear", align_corners=False).argmax(1).numpy()
    both, either, right, counted = [0] * 3, [0] * 3, 0, 0
    for true, said in zip(masks.numpy().ravel(), predicted.ravel(), strict=True):
        if true == 255:
            continue
        counted += 1
        right += int(true == said)
        for number in range(3):
            both[number] += int(true == number and said == number)
            either[number] += int(number in (true, said))
    ious = [a / b for a, b in zip(both, either, strict=True)]
    found = scored(task, outputs, masks, batch)
    assert found["miou"] == pytest.approx(sum(ious) / 3, abs=1e-9)
    assert found["acc"] == pytest.approx(right / counted, abs=1e-9)
    for name, iou in zip(CLASSES, ious, strict=True):
        assert found[f"iou_{name}"] == pytest.approx(iou, abs=1e-9)
    assert set(found) == set(task.metric_names)


def test_one_confusion_matrix_is_no_mean_over_batches(task: Segmentation):
    """A class in one image only: the mean of two batches' figures would be another number."""
    masks = torch.zeros(2, 4, 4, dtype=torch.uint8)
    masks[0, 0, 0] = 1
    outputs = torch.zeros(2, 3, 4, 4)
    outputs[:, 0] = 1.0
    outputs[0, 1, 0, 0] = 9.0
    outputs[1, 1, 1, 1] = 9.0  # a false alarm in the other image
    found = scored(task, outputs, masks, batch=1)
    assert found["iou_tree"] == pytest.approx(1 / 2)
    assert math.isnan(found["iou_car"])
    assert found["miou"] == pytest.approx((1 / 2 + 30 / 31) / 2)


def test_the_loss_is_torchs_over_the_pixels_that_count(task: Segmentation):
    outputs, masks = some()
    logits = F.interpolate(outputs, size=masks.shape[1:], mode="bilinear", align_corners=False)
    wanted = F.cross_entropy(logits, masks.long(), ignore_index=255)
    assert task.loss(outputs, masks).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert scored(task, outputs, masks, batch=2)["loss"] == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weighted_loss_is_torchs(smoothing: float):
    weights = torch.tensor([0.2, 1.0, 3.0])
    task = Segmentation(CLASSES, label_smoothing=smoothing, class_weights=weights)
    outputs, masks = some()
    logits = F.interpolate(outputs, size=masks.shape[1:], mode="bilinear", align_corners=False)
    wanted = F.cross_entropy(logits, masks.long(), weight=weights, ignore_index=255, label_smoothing=smoothing)
    assert task.objective(outputs, masks).item() == pytest.approx(wanted.item(), rel=1e-6)
    plain = F.cross_entropy(logits, masks.long(), ignore_index=255)
    assert task.weighs
    assert task.loss(outputs, masks).item() == pytest.approx(plain.item(), rel=1e-6)
    assert scored(task, outputs, masks, batch=3)["loss"] == pytest.approx(plain.item(), rel=1e-5)


def test_a_batch_in_which_nothing_counts_teaches_nothing(task: Segmentation):
    outputs = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = task.loss(outputs, torch.full((2, 8, 8), IGNORED, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0.0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_predictions_are_shares_of_the_pixels(task: Segmentation):
    outputs, masks = some()
    kept = EpochOutputs()
    kept.add(*task.rows(outputs, masks), torch.arange(len(masks)))
    found = kept.gather(task)
    counts = masks != 255
    predicted = task.masks(outputs, (12, 10))
    for image in range(len(masks)):
        inside = counts[image]
        said = np.bincount(predicted[image][inside].numpy(), minlength=3) / int(inside.sum())
        true = np.bincount(masks[image][inside].numpy(), minlength=3) / int(inside.sum())
        np.testing.assert_allclose(found.probabilities[image], said, atol=1e-6)
        np.testing.assert_allclose(found.targets[image], true, atol=1e-6)


def test_outputs_that_are_no_numbers_show(task: Segmentation):
    outputs, masks = some()
    outputs[2, 1, 3, 3] = math.nan
    kept = EpochOutputs()
    kept.add(*task.rows(outputs, masks), torch.arange(len(masks)))
    found = kept.gather(task)
    assert all(math.isnan(value) for value in found.metrics.values())
    assert np.isnan(found.probabilities).any(axis=1).tolist() == [image == 2 for image in range(7)]


def test_training_is_summed_up_at_the_resolution_of_the_outputs(task: Segmentation):
    outputs, masks = torch.zeros(1, 3, 2, 2), torch.ones(1, 4, 4, dtype=torch.uint8)
    outputs[0, 1, 0, :] = 1.0
    masks[0, :, 2:] = IGNORED
    rows = task.rows(outputs, masks, training=True)
    assert task.training_summary(*rows) == {"acc": 0.5}
    metrics = task.training_metrics(*rows, objective=7.0, differs=True)
    wanted = F.cross_entropy(outputs[:, :, :, 0], torch.ones(1, 2, dtype=torch.long)).item()
    assert metrics == pytest.approx({"loss": wanted, "objective": 7.0, "acc": 0.5})


def test_balanced_weights_follow_the_pixels():
    shares = np.array([[0.9, 0.1, 0.0], [0.7, 0.3, 0.0]], dtype=np.float32)
    task = build_task("segmentation", CLASSES, class_weights="balanced", train_targets=shares)
    assert task.class_weights.tolist() == pytest.approx([2 / (3 * 1.6), 2 / (3 * 0.4), 0.0])


def test_large_masks_are_made_class_by_class_and_are_the_same(task: Segmentation, monkeypatch: pytest.MonkeyPatch):
    outputs, _ = some()
    outputs[:, 1, :3] = outputs[:, 0, :3]  # where two are alike the first counts
    whole = task.masks(outputs, (33, 50))
    monkeypatch.setattr("headstart.tasks.segmentation._AT_ONCE", 100)
    assert torch.equal(task.masks(outputs, (33, 50)), whole)
    assert torch.equal(task.masks(outputs, (6, 5)), outputs.argmax(dim=1).to(torch.uint8))
