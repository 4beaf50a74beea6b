"""What is said on the terminal and copied into the log."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from headstart.system import console
from headstart.system.console import (
    audit_table,
    copied_to,
    end_table,
    result_summary,
    show,
    show_result,
    weights_notice,
)

ROWS = [
    {"stage": "stem", "parameters": 9_536, "trainable": 0, "lr": None, "mode": "eval"},
    {"stage": "layer4", "parameters": 8_393_728, "trainable": 8_393_728, "lr": (1e-5, 1e-4), "mode": "train"},
    {"stage": "head", "parameters": 1_026, "trainable": 1_026, "lr": (1e-3, 1e-3), "mode": "train"},
]


def rendered(renderable: Any, width: int = 120, **options: Any) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, **options).print(renderable)
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def test_the_audit_table_names_every_stage_with_its_rate() -> None:
    lines = [line.split() for line in rendered(audit_table(ROWS, title="Phase all"))]
    assert lines[0] == ["Phase", "all"]
    assert ["stem", "9,536", "frozen", "-", "eval"] in lines
    assert ["layer4", "8,393,728", "8,393,728", "1e-05", "to", "0.0001", "train"] in lines
    assert ["head", "1,026", "1,026", "0.001", "train"] in lines
    assert lines[-1] == ["all", "8,404,290", "8,394,754"]


@pytest.mark.parametrize("width", [30, 60, 300])
def test_tables_keep_to_the_width_of_the_terminal(finished: Callable[..., Any], width: int) -> None:
    result = finished(metrics={f"{split}/metric{i}": 0.5 for split in ("val", "test") for i in range(8)})
    for renderable in (audit_table(ROWS), result_summary(result)):
        assert max(map(len, rendered(renderable, width=width))) <= width


def test_the_end_table_is_splits_by_metrics() -> None:
    metrics = {"val/loss": 0.25, "val/acc": 0.5, "test/acc": 0.75, "test/loss": None}
    lines = [line.split() for line in rendered(end_table({"metrics": metrics}))]
    assert lines[0] == ["split", "acc", "loss"]
    assert lines[2:] == [["val", "0.5000", "0.2500"], ["test", "0.7500", "-"]]


def test_a_missing_test_split_is_said() -> None:
    assert rendered(end_table({"metrics": {"val/acc": 0.5}}))[-1].split() == ["test", "none"]


def test_other_data_sets_keep_their_name(finished: Callable[..., Any]) -> None:
    lines = rendered(end_table({"metrics": {"val/acc": 0.5, "source/val/acc": 0.25}}))
    assert ["source/val", "0.2500"] in [line.split() for line in lines]


def test_random_weights_are_said_loudly() -> None:
    notice = weights_notice({"source": "none", "sha256": "", "matched": 0, "missing": ()})
    assert notice.plain.startswith("RANDOM WEIGHTS")
    assert "red" in str(notice.style)


def test_the_weights_used_are_named_with_what_is_missing() -> None:
    weights = {
        "source": "hub:resnet18",
        "sha256": "0123456789abcdef",
        "matched": 120,
        "missing": ("a", "b"),
        "unexpected": (),
    }
    assert (
        weights_notice(weights).plain == "Weights: hub:resnet18 (sha256 0123456789ab, 120 tensors matched, 2 missing)"
    )


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


def test_a_log_is_wider_than_a_default_terminal(
    finished: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show(end_table(finished(metrics={f"val/metric{i}": 0.5 for i in range(8)})))
    assert max(map(len, capsys.readouterr().out.splitlines())) > 80


def test_a_returned_run_says_that_nothing_was_trained(
    finished: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    show_result(finished(), "run", returned=True)
    assert capsys.readouterr().out.startswith("Already done")


def test_what_is_shown_is_copied_as_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=40, highlight=False)
    monkeypatch.setattr(console, "_console", terminal)
    log = tmp_path / "log.txt"
    with copied_to(log):
        show(weights_notice({"source": "none"}))
        show("[bold] is not markup")
    show("after")
    assert "\x1b" in terminal.file.getvalue()  # type: ignore[attr-defined]
    text = log.read_text()
    assert "\x1b" not in text
    assert text.splitlines()[-1] == "[bold] is not markup"
    assert "after" not in text


def test_the_log_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), copied_to(tmp_path / "log.txt"):
        raise KeyError
    show("after")
    assert not (tmp_path / "log.txt").exists()
