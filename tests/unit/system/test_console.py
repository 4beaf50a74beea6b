"""What is said on the terminal and copied into the log."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from headstart.system import console
from headstart.system.console import copied_to, duration, plain_table, show


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (75.2, "75 s"),
        (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"),
        (11_220, "3 h 07 min"),
    ],
)
def test_durations_are_said_as_a_person_would(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_name_between_colons_is_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    table = plain_table("", "class")
    table.add_row(":car:")
    show(table)
    assert ":car:" in capsys.readouterr().out


def test_what_is_shown_is_copied_as_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=40, highlight=False)
    monkeypatch.setattr(console, "_console", terminal)
    log = tmp_path / "log.txt"
    with copied_to(log):
        show(Text("loud", style="bold red"))
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


def test_names_that_are_no_utf8_and_controls_are_shown_legibly(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with copied_to(tmp_path / "log.txt"):
        show(Text("\x1b[31mred", style="bold"))
        table = plain_table("\x1b]0;title", "a")
        table.add_row(Text("\x9b2J"))
        show(table)
    said = capsys.readouterr().out
    assert said == (tmp_path / "log.txt").read_text()
    assert not [letter for letter in said if (ord(letter) < 32 and letter != "\n") or "\x7f" <= letter < "\xa0"]
    assert r"\x1b[31mred" in said
    (tmp_path / "log.txt").unlink()
    with copied_to(tmp_path / "log.txt"):
        show("caf\udce9 \x1b[2J \ud800")
    assert capsys.readouterr().out.splitlines()[0] == r"caf\xe9 \x1b[2J \ud800"
    assert (tmp_path / "log.txt").read_text().splitlines()[0] == r"caf\xe9 \x1b[2J \ud800"
