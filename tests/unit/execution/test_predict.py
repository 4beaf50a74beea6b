import csv
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.commands.predict import main
from headstart.data.input_spec import InputSpec
from headstart.data.transforms import EvalTransform
from headstart.errors import DataError
from headstart.execution.load import Model, to_image
from headstart.execution.predict import Prediction, Unreadable, find_images, write_csv
from headstart.runs.directory import RunDirectory
from headstart.runs.result import write_result


class Brightness(nn.Module):
    """Two outputs: the mean pixel and its negative. Dropout shows whether it runs in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = self.dropout(images.mean((1, 2, 3)))
        return torch.stack([mean, -mean], 1)


@pytest.fixture
def loaded() -> Model:
    spec = InputSpec(height=8, width=8, mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=1.0)
    return Model(
        path=Path("run"),
        config={},
        result=None,
        network=Brightness(),
        task=SimpleNamespace(name="multiclass", one_class=True, probabilities=lambda outputs: outputs.softmax(1)),
        classes=("bright", "dark"),
        transform=EvalTransform(spec),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "new images"
    (root / "more").mkdir(parents=True)
    Image.new("RGB", (20, 10), (255, 255, 255)).save(root / "a.png")
    Image.new("L", (10, 10), 0).save(root / "b.jpg")
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(root / "more" / "c.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (root / "notes.txt").write_text("x")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def test_images_come_in_order_whatever_the_batch_size(loaded, folder: Path):
    paths = find_images([folder])
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


def test_a_path_is_classified_once_and_a_named_file_is_always_tried(folder: Path):
    assert find_images([folder / "a.png", folder, folder / "notes.txt"])[0].endswith("a.png")
    assert len(find_images([folder / "a.png", folder, folder / "notes.txt"])) == 5


def test_what_does_not_exist_is_named(folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        find_images([folder / "gone.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image files"):
        find_images([tmp_path / "empty"])


def test_the_csv_can_be_read_back():
    file = io.StringIO()
    write_csv(file, ["a", "b,c"], [Prediction('x "1", y.png', "b,c", (0.25, 0.75))])
    assert list(csv.reader(io.StringIO(file.getvalue()))) == [
        ["path", "class", "probability/a", "probability/b,c"],
        ['x "1", y.png', "b,c", "0.25", "0.75"],
    ]


@pytest.fixture
def run_path(tmp_path: Path, finished, loaded, monkeypatch) -> Path:
    import headstart.execution.load

    monkeypatch.setattr(headstart.execution.load, "load", lambda path: loaded)
    run = RunDirectory.open(tmp_path / "outputs", "study", "a", "1" * 8)
    write_result(run.path, finished(fingerprint="1" * 8))
    return run.path


def test_the_command_writes_the_csv_and_reports_what_it_skipped(run_path: Path, folder: Path, tmp_path: Path, capsys):
    output = tmp_path / "predictions.csv"
    assert main([str(run_path), str(folder), "--output", str(output), "--device", "cpu"]) == 0
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [row["class"] for row in rows] == ["bright", "dark", "bright"]
    assert float(rows[0]["probability/bright"]) + float(rows[0]["probability/dark"]) == pytest.approx(1)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "broken.jpg cannot be read" in streams.err
    assert "3 images classified" in streams.err
    assert "1 unreadable" in streams.err


def test_without_an_output_the_csv_goes_to_standard_output_alone(run_path: Path, folder: Path, capsys):
    assert main([str(run_path), str(folder / "a.png"), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "path,class,probability/bright,probability/dark"


def test_nothing_readable_is_a_failure(run_path: Path, folder: Path, capsys):
    assert main([str(run_path), str(folder / "broken.jpg"), "--device", "cpu"]) == 1
    assert "0 images classified" in capsys.readouterr().err


def test_names_that_begin_like_a_formula_are_text(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with path.open("w") as file:
        write_csv(file, ["=cmd|' /C calc'!A0", "b"], [Prediction("@a.png", "=cmd|' /C calc'!A0", (0.9, 0.1))])
    header, row = path.read_text().splitlines()
    assert row.startswith("'@a.png,'=cmd|")
    assert header.startswith("path,class,probability/=cmd")
