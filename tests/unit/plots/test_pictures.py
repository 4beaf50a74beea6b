"""Pictures of one run: what is drawn, from the figure itself, and that a readable PNG is written."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from headstart.plots import confident_errors, confusion, curves, predicted_vs_true
from headstart.plots import style as figures
from headstart.plots.confident_errors import most_confident_errors, plot_confident_errors
from headstart.plots.confusion import confusion_counts, plot_confusion_matrix
from headstart.plots.curves import phases_from, plot_learning_curves
from headstart.plots.predicted_vs_true import plot_predicted_vs_true


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been written."""
    kept: list[Figure] = []

    def keep(draw: Callable[[Figure], None], path: str | Path, *, dpi: int = 130) -> Path:
        with mpl.rc_context(figures.SMALL):
            figure = Figure(layout="constrained")
            FigureCanvasAgg(figure)
            draw(figure)
        kept.append(figure)
        return Path(path)

    for module in (confident_errors, confusion, curves, predicted_vs_true, figures):
        monkeypatch.setattr(module, "save_figure", keep)
    return kept


def texts(figure: Figure) -> list[str]:
    own = [text.get_text() for text in figure.texts]
    for axis in figure.axes:
        own += [axis.get_title(loc) for loc in ("left", "center")] + [text.get_text() for text in axis.texts]
    return [text for text in own if text]


ROWS = [
    {
        "epoch": "0",
        "step": "4",
        "phase": "head",
        "train/loss": "2.0",
        "val/loss": "1.5",
        "val/acc": "",
        "lr/head": "0.1",
    },
    {
        "epoch": 1,
        "step": 8,
        "phase": "head",
        "train/loss": 1.0,
        "val/loss": float("nan"),
        "val/acc": 0.5,
        "lr/head": 0.1,
    },
    {"epoch": 2, "step": 12, "phase": "all", "train/loss": 0.5, "val/loss": None, "val/acc": 0.7, "lr/head": 0.01},
]


def test_learning_curves_have_a_panel_a_metric_and_leave_out_what_is_missing(drawn: list[Figure]) -> None:
    plot_learning_curves(ROWS, "x.png", phases=phases_from(ROWS), best_epoch=2)
    axes = {axis.get_title("left"): axis for axis in drawn[0].axes if axis.axison}
    assert list(axes) == ["loss", "acc", "learning rate"]
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes["loss"].lines}
    assert curves["train"] == [[1, 2.0], [2, 1.0], [3, 0.5]]
    assert curves["val"] == [[1, 1.5]]
    assert axes["acc"].lines[0].get_xydata().tolist() == [[2, 0.5], [3, 0.7]]
    shown = texts(drawn[0])
    assert "head" in shown
    assert "all" in shown
    assert "chosen" in shown
    assert 3 in [line.get_xdata()[0] for line in axes["acc"].lines if len(line.get_xdata()) == 2]


def test_learning_rates_that_agree_share_a_line(drawn: list[Figure]) -> None:
    rows = [{"epoch": e, "lr/a": 1.0 / (e + 1), "lr/b": 1.0 / (e + 1), "lr/c": 0.5} for e in range(3)]
    plot_learning_curves(rows, "x.png")
    assert [line.get_label() for line in drawn[0].axes[0].lines] == ["a + 1", "c"]


def test_phases_come_from_the_rows() -> None:
    assert [(span.name, span.start_epoch, span.end_epoch) for span in phases_from(ROWS)] == [
        ("head", 0, 2),
        ("all", 2, 3),
    ]


def test_learning_curves_without_rows_say_so(drawn: list[Figure]) -> None:
    plot_learning_curves([], "x.png")
    assert texts(drawn[0]) == ["No epoch has been recorded yet."]


def test_confusion_counts_agree_with_counting() -> None:
    rng = np.random.default_rng(0)
    targets, predictions = rng.integers(0, 4, 100), rng.integers(0, 4, 100)
    slow = np.zeros((4, 4), dtype=int)
    for target, prediction in zip(targets, predictions, strict=True):
        slow[target, prediction] += 1
    assert np.array_equal(confusion_counts(targets, predictions, 4), slow)


def test_a_small_confusion_matrix_shows_counts_and_shares(drawn: list[Figure]) -> None:
    plot_confusion_matrix(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1]), ["ant", "bee"], "x.png", title="val")
    assert texts(drawn[0]) == ["val: 5 images, 80.0% correct", "3\n75%", "1\n25%", "1\n100%"]


def test_a_large_confusion_matrix_lists_the_most_frequent_confusions(drawn: list[Figure]) -> None:
    targets = np.repeat(np.arange(30), 10)
    predictions = targets.copy()
    predictions[:3] = 7
    predictions[20:22] = 9
    plot_confusion_matrix(targets, predictions, [f"class {i}" for i in range(30)], "x.png")
    shown = texts(drawn[0])
    assert shown[1:] == ["most frequent confusions", "3", "class 0  →  class 7", "2", "class 2  →  class 9"]


@pytest.mark.parametrize("number", [2, 15, 60, 200])
def test_the_names_of_classes_fit_their_rows(drawn: list[Figure], number: int) -> None:
    targets = np.arange(number)
    plot_confusion_matrix(targets, targets, [f"name {i}" for i in range(number)], "x.png")
    axis = drawn[0].axes[0]
    drawn[0].draw_without_rendering()
    boxes = sorted((label.get_window_extent() for label in axis.get_yticklabels()), key=lambda box: box.y0)
    assert len(boxes) == number
    for below, above in pairwise(boxes):
        # An extent includes the room of descenders and accents: a third of it may overlap.
        assert above.y0 - below.y0 > 0.66 * below.height
    assert all(box.x0 >= 0 for box in boxes)


@pytest.mark.parametrize("title", ["test", "Meine Bilder, neu (1) (all)", "the name of a folder " * 9])
def test_a_title_ends_within_its_picture(drawn: list[Figure], title: str) -> None:
    plot_confusion_matrix(np.zeros(1000, int), np.zeros(1000, int), ["ant", "bee"], "x.png", title=title)
    figures.save_sentence("None.", "x.png", title=title)
    for figure in drawn:
        figure.draw_without_rendering()
        shown = figure.axes[0]._left_title if figure.axes else figure._suptitle
        assert shown.get_text().startswith(title[:20])
        assert shown.get_window_extent().x1 <= figure.bbox.x1


def test_the_most_confident_errors_come_first_and_right_answers_never() -> None:
    probability = [0.9, 0.6, 0.8, 0.99, 0.8]
    assert most_confident_errors([0, 1, 1, 2, 0], [1, 1, 0, 2, 1], probability) == [0, 2, 4]
    assert most_confident_errors([0, 1, 1, 2, 0], [1, 1, 0, 2, 1], probability, limit=1) == [0]


def test_only_the_images_shown_are_read(drawn: list[Figure]) -> None:
    read: list[int] = []

    class Lazy:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> np.ndarray:
            read.append(index)
            return np.full((6, 9, 3), 100, dtype=np.uint8)

    plot_confident_errors(
        Lazy(), [0, 0, 1, 1], [1, 0, 0, 0], [0.7, 0.9, 0.95, 0.6], "x.png", classes=["ant", "bee"], limit=2
    )
    assert read == [2, 0]
    assert texts(drawn[0]) == ["The 2 most confident of 3 errors", "ant  95%", "is bee", "bee  70%", "is ant"]


def test_no_error_is_said(drawn: list[Figure]) -> None:
    plot_confident_errors([], [1, 0], [1, 0], [0.9, 0.9], "x.png")
    plot_confident_errors([], [], [], [], "x.png")
    assert [texts(figure) for figure in drawn] == [
        ["None of 2 images was classified wrongly."],
        ["No image has been scored."],
    ]


def test_predicted_against_true_reports_the_error_and_leaves_out_nan(drawn: list[Figure]) -> None:
    plot_predicted_vs_true(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, 2.0, 2.5, np.nan]), "x.png", name="age")
    assert texts(drawn[0]) == ["3 images, MAE 0.333, R² 0.750, 1 not finite"]
    assert drawn[0].axes[0].collections[0].get_offsets().tolist() == [[1, 1.5], [2, 2], [3, 2.5]]


def test_odd_names_and_shapes_become_png_files(tmp_path: Path) -> None:
    names = ["US$ and CA$", "日本語の名前", "a" * 80, "_hidden"]
    rng = np.random.default_rng(0)
    targets, predictions = np.arange(4).repeat(3), np.tile(np.arange(4), 3)
    images = [rng.integers(0, 255, shape, dtype=np.uint8) for shape in [(20, 5, 3), (5, 20, 1), (8, 8), (9, 9, 4)] * 3]
    written = [
        plot_confusion_matrix(targets, predictions, names, tmp_path / "deeper" / "matrix.png"),
        plot_confident_errors(images, targets, predictions, rng.random(12), tmp_path / "errors.png", classes=names),
        plot_learning_curves(ROWS[:1], tmp_path / "curves.png", best_epoch=0, title="$x"),
        plot_predicted_vs_true(np.ones(3), np.ones(3), tmp_path / "scatter.png"),
    ]
    for path in written:
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 1
    assert sorted(path.name for path in tmp_path.rglob("*.tmp")) == []


def test_a_failing_picture_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        plot_confident_errors([], [0], [1], [0.5], tmp_path / "errors.png")
    assert list(tmp_path.iterdir()) == []


def test_no_window_system_is_touched() -> None:
    modules = "confident_errors, confusion, curves, predicted_vs_true, style"
    code = f"import sys; from headstart.plots import {modules}; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_many_cells_are_one_drawing_and_every_count_has_its_cell(drawn: list[Figure]) -> None:
    plot_confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), ["a", "b", "c"], "x.png")
    (cells,) = drawn[0].axes[0].collections
    places = [tuple(path.get_extents().get_points().mean(axis=0)) for path in cells.get_paths()]
    assert places == [(0, 0), (1, 0), (1, 1), (0, 2)]  # predicted, true
    shades = cells.get_facecolors()
    assert shades[:, 3] == pytest.approx(0.68 * np.sqrt([0.5, 0.5, 1, 1]))
    assert (shades[0, :3] == shades[2, :3]).all()  # right answers
    assert (shades[1, :3] == shades[3, :3]).all()  # mistakes
    assert (shades[0, :3] != shades[1, :3]).any()
