"""The audit's table."""

import io
from typing import Any

import pytest
from rich.console import Console

from headstart.training.audit import StageRow, audit_table

ROWS = [
    StageRow("stem", 9_536, 0, None, "eval"),
    StageRow("layer4", 8_393_728, 8_393_728, (1e-5, 1e-4), "train"),
    StageRow("head", 1_026, 1_026, (1e-3, 1e-3), "train"),
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
def test_the_table_keeps_to_the_width_of_the_terminal(width: int) -> None:
    assert max(map(len, rendered(audit_table(ROWS), width=width))) <= width
