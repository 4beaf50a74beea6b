from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.data.input_spec import InputSpec
from headstart.data.transforms import EvalTransform
from headstart.errors import RunError
from headstart.execution.load import Model
from headstart.execution.predict import Unreadable
from headstart.inference.ensemble import Ensemble
from headstart.tasks import build_task


class LeftHalf(nn.Module):
    """Two outputs: the mean of the left half, and zero."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        left = images[..., : images.shape[-1] // 2].mean((1, 2, 3))
        return torch.stack([left, torch.zeros_like(left)], 1)


@pytest.fixture
def lopsided(loaded: Model) -> Model:
    """Another network, of smaller gray images."""
    spec = InputSpec(channels=1, height=4, width=4, mean=(0.5,), std=(0.5,), crop_pct=1.0)
    return replace(loaded, network=LeftHalf(), transform=EvalTransform(spec))


@pytest.fixture
def photo(tmp_path: Path) -> str:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_one_model_is_itself(loaded: Model, folder: Path):
    paths = [str(folder / name) for name in ("a.png", "broken.jpg", "b.jpg")]
    alone = list(loaded.stream(paths, batch_size=2, device="cpu"))
    assert list(Ensemble([loaded]).stream(paths, batch_size=2, device="cpu")) == alone


def test_several_are_the_mean_of_their_probabilities(loaded: Model, lopsided: Model, folder: Path, photo: str):
    paths = [photo, str(folder / "broken.jpg"), str(folder / "b.jpg")]
    each = [list(model.stream(paths, device="cpu")) for model in (loaded, lopsided)]
    together = list(Ensemble([loaded, lopsided]).stream(paths, batch_size=2, device="cpu"))
    assert isinstance(together[1], Unreadable)
    for place in (0, 2):
        expected = np.mean([one[place].probabilities for one in each], axis=0)
        assert together[place].probabilities == pytest.approx(expected.tolist())
        assert together[place].label == ("bright", "dark")[int(expected.argmax())]


def test_a_flip_is_the_mean_over_both_sides(lopsided: Model, photo: str, tmp_path: Path):
    mirrored = str(tmp_path / "mirrored.png")
    Image.open(photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    sides = [one.probabilities for one in lopsided.predict([photo, mirrored], device="cpu")]
    assert abs(sides[0][0] - sides[1][0]) > 0.2
    (found,) = Ensemble([lopsided], flip=True).stream([photo], device="cpu")
    assert found.probabilities == pytest.approx(np.mean(sides, axis=0).tolist(), abs=1e-6)


def test_runs_that_disagree_have_no_mean(loaded: Model):
    with pytest.raises(RunError, match=r"elsewhere knows day, night and run bright, dark"):
        Ensemble([loaded, replace(loaded, path=Path("elsewhere"), classes=("day", "night"))])
    task = SimpleNamespace(name="multilabel")
    with pytest.raises(RunError, match="task=multilabel and run task=multiclass"):
        Ensemble([loaded, replace(loaded, task=task)])


def test_the_labels_of_several_runs_do_not_depend_on_their_order(loaded: Model, photo: str):
    models = []
    for threshold in (0.2, 0.7):
        task = build_task("multilabel", ("bright", "dark"))
        task.thresholds = (threshold, threshold)
        models.append(replace(loaded, task=task))
    found = [next(iter(Ensemble(order).stream([photo], device="cpu"))) for order in (models, models[::-1])]
    assert found[0] == found[1]
    assert Ensemble(models).task.thresholds == pytest.approx((0.45, 0.45))
    assert models[0].task.thresholds == (0.2, 0.2)
