import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.errors import DataError
from headstart.execution.load import to_image
from headstart.execution.predict import Prediction, Unreadable
from headstart.inference.inputs import find_images


def test_images_come_in_order_whatever_the_batch_size(loaded, folder: Path):
    paths = list(find_images([folder]))
    assert [Path(path).name for path in paths] == ["a.png", "b.jpg", "broken.jpg", "c.png"]
    outcomes = list(loaded.stream(paths, batch_size=1, device="cpu"))
    assert [type(outcome) for outcome in outcomes] == [Prediction, Prediction, Unreadable, Prediction]
    assert [outcome.label for outcome in outcomes if isinstance(outcome, Prediction)] == ["bright", "dark", "bright"]
    white = torch.tensor([2.0, -2.0]).softmax(0)
    assert outcomes[0].probabilities == pytest.approx(white.tolist())
    assert "broken.jpg" in outcomes[2].reason
    for size in (2, 3, 4, 100):
        assert list(loaded.stream(paths, batch_size=size, device="cpu")) == outcomes
    assert list(loaded.stream([], device="cpu")) == []


def test_images_are_asked_for_two_batches_ahead_at_most(loaded, folder: Path):
    asked = []

    def images():
        for number in itertools.count():
            asked.append(number)
            yield folder / "a.png"

    outcomes = loaded.stream(images(), batch_size=3, device="cpu")
    for seen in range(1, 10):
        next(outcomes)
        assert len(asked) <= seen + 6


def test_an_image_is_the_same_in_every_form(loaded, folder: Path):
    rgb = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    image, channels_first = Image.fromarray(rgb), torch.from_numpy(rgb).permute(2, 0, 1)
    image.save(folder / "d.png")
    expected = loaded.predict(folder / "d.png", device="cpu")
    assert expected.path == str(folder / "d.png")
    forms = [str(folder / "d.png"), image, rgb, channels_first, channels_first / 255]
    for form in forms:
        assert loaded.predict(form, device="cpu").probabilities == expected.probabilities
    for batch in (forms, tuple(forms), iter(forms), np.stack([rgb] * 5), torch.stack([channels_first] * 5)):
        predicted = loaded.predict(batch, batch_size=2, device="cpu")
        assert [one.probabilities for one in predicted] == [expected.probabilities] * 5
    assert loaded.predict([image], device="cpu") == [loaded.predict(image, device="cpu")]
    assert loaded.predict([], device="cpu") == []
    gray = rgb[..., 0]
    for form in (gray, gray[..., None], torch.from_numpy(gray)[None]):
        assert np.array_equal(np.asarray(to_image(form, 1)), gray)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (np.zeros((4, 4, 3)), "array .*uint8"),
        (np.zeros((3, 8, 8), dtype=np.uint8), r"\(3, 8, 8\) has no 1 to 4 channels"),
        (torch.full((3, 8, 8), -0.5), "not normalised"),
        (torch.full((3, 8, 8), torch.nan), "not normalised"),
        (torch.zeros(8, 8), r"tensor \(C, H, W\)"),
        (3, "int .*is no image"),
    ],
)
def test_what_is_no_image_is_refused(loaded, image, problem):
    with pytest.raises(DataError, match=problem):
        loaded.predict([image], device="cpu")


def test_an_unreadable_file_is_an_error_from_python(loaded, folder: Path):
    with pytest.raises(DataError, match=r"broken\.jpg cannot be read"):
        loaded.predict([folder / "a.png", folder / "broken.jpg"], device="cpu")
