"""The bar of a real fit on a terminal."""

import io
import re
from typing import Any

import pytest
import pytorch_lightning as pl
from headstart_testing import tiny_run
from rich.console import Console
from rich.progress import Progress

from headstart.strategies import Freeze
from headstart.system import console
from headstart.training import progress
from headstart.training.progress import BarProgress, shows_bar
from headstart.training.rows import epoch_line


class DrawnAtEachStep(Progress):
    """A bar whose every state is on the terminal, however fast the steps are."""

    def update(self, *args: Any, **fields: Any) -> None:
        super().update(*args, **(fields | {"refresh": True}))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    made = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(console, "_console", made)
    return made


def test_the_bar_leaves_only_the_lines_of_the_epochs(terminal: Console, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "Progress", DrawnAtEachStep)
    run = tiny_run(Freeze(), max_epochs=3, callbacks=[BarProgress()])
    run.module.on_row = lambda row: console.show(epoch_line(row, 3))
    run.fit()
    text = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "batches/s" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r", "\n"))
    for number in (1, 2, 3):
        assert len(re.findall(rf"^Epoch {number}/3  train/loss .* s$", plain, re.MULTILINE)) == 1
    assert not terminal._live_stack


def test_an_error_takes_the_bar_away(terminal: Console):
    class Fail(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            raise RuntimeError("stopped here")

    with pytest.raises(RuntimeError, match="stopped here"):
        tiny_run(Freeze(), callbacks=[BarProgress(), Fail()]).fit()
    assert "\x1b[?25h" in terminal.file.getvalue()  # type: ignore[attr-defined]  the cursor is back
    assert not terminal._live_stack


def test_a_bar_is_for_a_person_at_a_terminal(terminal: Console, monkeypatch: pytest.MonkeyPatch):
    assert shows_bar("auto")
    assert not shows_bar("plain")
    assert not shows_bar("none")
    monkeypatch.setattr(console, "_console", Console(file=io.StringIO()))
    assert not shows_bar("auto")
    assert shows_bar("rich")
