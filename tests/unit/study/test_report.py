"""The report as files: complete, escaped, the same twice, and nothing empty in it."""

import csv
import html
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from headstart.commands.cli import main
from headstart.study.report import Report, print_report, write_report
from headstart.system.catalog import conf_dir
from headstart.system.console import get_console

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StudyWriter

EVIL = '<script>alert("x")</script>&amp;$\\frac{'


class Outline(HTMLParser):
    """Tags, headings and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside == "h2":
            self.headings.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def test_every_section_is_there_when_its_data_is(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full", "scratch"], range(1, 7), shots=[5, 20])
    writer.failed("lora", "RuntimeError: out of memory")
    report = write_report(writer.root)
    page = report.page.read_text()
    assert Outline(page).headings == [
        "Results",
        "Paired differences",
        "How many images does it take?",
        "What it costs",
        "What pretraining brings",
        "Learning curves",
        "What moved",
        "Can its confidence be trusted?",
        "What is taken for what",
        "Images on which they disagree",
        "Runs that are not counted",
    ]
    assert "RuntimeError: out of memory" in page
    names = {path.name for path in report.folder.iterdir()}
    for plot in (
        "scores",
        "differences",
        "shots",
        "cost-total-seconds",
        "transfer-gain",
        "learning",
        "drift",
        "calibration",
    ):
        assert {f"{plot}.svg", f"{plot}.png", f"{plot}.csv"} <= names
    assert {"changed-images.csv", "classes.csv"} <= names
    assert "Class by class" in page


def test_sections_without_data_are_left_out(writer: "StudyWriter") -> None:
    for seed in (1, 2):
        for strategy in ("freeze", "full"):
            path = writer.run(strategy, seed, result={"cost": {}, "params": {"total": None, "trainable": None}})
            for name in ("metrics.csv", "audit.json", "predictions_val.npz", "predictions_test.npz"):
                (path / name).unlink()
    page = write_report(writer.root).page.read_text()
    assert Outline(page).headings == ["Results", "Paired differences"]


@pytest.fixture(scope="module")
def plain(make_writer: "Callable[..., StudyWriter]") -> Report:
    """The report of three seeds of two strategies, for tests that only look."""
    writer = make_writer()
    return write_report(writer.study(["freeze", "full"], range(1, 4)))


def test_plots_data_are_the_numbers_shown(plain: Report) -> None:
    report = plain
    with (report.folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    mean = sum(float(row["test/acc"]) for row in rows if row["value"] == "full") / 3
    assert f"{100 * mean:.1f} %" in report.page.read_text()
    for path in report.folder.glob("*.svg"):
        ElementTree.parse(path)
    for path in report.folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_whatever_runs_are_called_stays_text(make_writer: "Callable[..., StudyWriter]") -> None:
    writer = make_writer(classes=[EVIL, "b"])
    for seed in (1, 2):
        writer.run("freeze", seed, data="d", config={"head": EVIL})
        writer.run("freeze", seed + 10, data="d", config={"head": "</svg><img src=x onerror=alert(1)>"})
    writer.failed("broken", EVIL)
    report = write_report(writer.root)
    page = report.page.read_text()
    outline = Outline(page)
    assert not {"script", "img", "iframe", "link", "object"} & set(outline.tags)
    assert not [name for name, _ in outline.attributes if name.startswith("on") or name == "src"]
    assert "&lt;script&gt;" in page
    for path in report.folder.glob("*.svg"):
        ElementTree.parse(path)


def test_page_needs_nothing_from_elsewhere(plain: Report) -> None:
    page = plain.page.read_text()
    assert not re.search(r"https?://|//[a-z]", page.split("</style>", 1)[1])
    assert "@import" not in page
    assert "url(" not in page.split("</style>", 1)[0]
    # The colours are the page's, so that dark mode reaches the plots.
    assert "var(--s1)" in page
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.search(r"(?:fill|stroke): #", drawn)


def test_the_same_runs_give_the_same_page(plain: Report, tmp_path: Path) -> None:
    again = write_report(plain.page.parent, out=tmp_path)
    assert again.page.read_bytes() == plain.page.read_bytes()
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == {
        path.name: path.read_bytes() for path in plain.folder.iterdir()
    }


def test_plots_of_an_earlier_report_do_not_stay(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1])
    folder = writer.root / "report"
    write_report(writer.root)
    (folder / "old.png").write_bytes(b"")
    (folder / "outside.csv").write_text("mine")
    names = json.loads((folder / ".files.json").read_text())
    (writer.root / "mine.csv").write_text("mine")
    (folder / ".files.json").write_text(json.dumps([*names, "old.png", "../mine.csv", 3]))
    assert write_report(writer.root).folder == folder
    assert not (folder / "old.png").exists()
    assert (folder / "outside.csv").read_text() == (writer.root / "mine.csv").read_text() == "mine"
    assert json.loads((folder / ".files.json").read_text()) == names


def test_a_folder_of_plots_that_is_not_ours_is_not_emptied(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1])
    (writer.root / "report").mkdir()
    mine = [writer.root / "report" / name for name in ("thesis.docx", "measured.csv", ".scores.csv.1f.tmp")]
    for path in mine:
        path.write_text("mine")
    write_report(writer.root)
    assert [path.read_text() for path in mine] == ["mine"] * 3


def test_runs_csv_has_a_row_per_run(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1, 2])
    writer.failed("lora", 'ValueError: a, "quoted"\nmessage')
    with write_report(writer.root).runs_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    failed = next(row for row in rows if row["status"] == "failed")
    assert failed["reason"] == 'ValueError: a, "quoted"\nmessage'
    full = next(row for row in rows if row["strategy"] == "full" and row["seed"] == "2")
    assert 0 < float(full["test/acc"]) < 1
    assert full["weights_source"] == "bundled"


def test_tables_that_may_not_be_joined_are_apart(writer: "StudyWriter") -> None:
    for data in ("animals", "plants"):
        for seed in range(1, 4):
            writer.run("freeze", seed, data=data)
            writer.run("full", seed, data=data)
    page = write_report(writer.root).page.read_text()
    headings = Outline(page).headings
    assert "All data sets together" in headings
    assert any(heading.startswith("plants") and heading.endswith("Verdict") for heading in headings)
    assert "In a table of its own because of other data (plants here, animals in the first table)." in page


@pytest.mark.parametrize(("width", "shown"), [(80, False), (140, True)])
def test_a_narrow_terminal_shows_fewer_columns_and_breaks_none(
    width: int, shown: bool, writer: "StudyWriter", capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_console(), "width", width)
    writer.study(["freeze", "full", "scratch"], range(1, 6))
    print_report(write_report(writer.root))
    table = capsys.readouterr().out.partition("Take ")[0]
    for word in ("strategy", "accuracy", "freeze", "full", "scratch", "standing"):
        assert word in table
    assert len(re.findall(r"\d % to \d", table)) == table.count(" % to") >= 3
    assert ("trainable" in table) == shown


def test_one_strategy_alone_is_still_a_report(writer: "StudyWriter") -> None:
    writer.study(["freeze"], [1])
    assert "Nothing to compare yet" in write_report(writer.root).page.read_text()
    writer.study(["freeze"], range(2, 7))
    page = write_report(writer.root).page.read_text()
    assert "Feature extraction (freeze) alone: " in page
    assert "It rests on 6 seeds on one split and 90 test images." in page
    assert "The runs lie from " in page


def test_what_goes_with_one_strategy_is_said_of_that_one(writer: "StudyWriter") -> None:
    for strategy in ("freeze", "full", "share", "scratch"):
        writer.run(strategy, 1, config={"sources.b.datamodule": "folder"} if strategy == "share" else {})
    page = write_report(writer.root).page.read_text()
    assert "sources.b.datamodule goes with strategy (share: folder, all others: (default))" in page


def test_there_is_room_for_every_strategy(make_writer: "Callable[..., StudyWriter]") -> None:
    writer = make_writer(images=20)
    names = sorted(path.stem for path in (Path(conf_dir()) / "strategy").glob("*.yaml"))
    report = write_report(writer.study(names, [1, 2]))
    assert len(names) >= 17
    assert len((report.folder / "scores.csv").read_text().splitlines()) == 1 + 2 * len(names)
    assert (report.folder / "differences.png").exists()
    for name in ("cost-total-seconds", "learning"):
        with Image.open(report.folder / f"{name}.png") as image:
            assert image.height > 650  # 517 with a key of one row: five more do not press the plot flat


def test_command_line(writer: "StudyWriter", capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    writer.study(["freeze", "full"], [1, 2, 3])
    writer.failed("lora", "RuntimeError: [red]no[/red]")
    assert main(["report", str(writer.root), "--reference", "full", "--out", str(tmp_path / "elsewhere")]) == 0
    shown = capsys.readouterr().out
    assert "Too few seeds to choose: so far full fine-tuning (full) scores highest" in " ".join(shown.split())
    assert "[red]no[/red]" in shown
    assert (tmp_path / "elsewhere" / "report.html").is_file()
    assert not (writer.root / "report.html").exists()


def test_json_and_notebook_give_the_numbers_of_the_page(
    writer: "StudyWriter", capsys: pytest.CaptureFixture[str]
) -> None:
    writer.study(["freeze", "full", "scratch"], range(1, 6))
    assert main(["report", str(writer.root), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    page = (writer.root / "report.html").read_text()
    (table,) = found["tables"]
    assert table["decision"]["take"] == "full"
    assert table["decision"]["headline"] in page
    assert [arm["value"] for arm in table["arms"]] == ["full", "freeze", "scratch"]  # the best first
    for arm in table["arms"]:
        assert f"{100 * arm['metrics']['test/acc']['mean']:.1f} %" in page
    for item in table["differences"]:
        interval = f"{100 * item['low']:+.1f} to {100 * item['high']:+.1f}".replace("-", "\N{MINUS SIGN}")
        assert interval in page
    report = write_report(writer.root)
    assert report.summary() == found
    shown = html.unescape(report._repr_html_())
    assert page in shown


def test_a_gain_covers_the_runs_that_it_has(writer: "StudyWriter") -> None:
    writer.study(["freeze"], range(1, 6))
    writer.study(["full", "scratch"], range(1, 9))
    (table,) = write_report(writer.root).summary()["tables"]
    gains = {item["value"]: (item["n"], item["covers"]) for item in table["gains"]}
    assert gains["freeze"] == (5, "5 seeds on one split and 90 test images")
    assert gains["full"] == (8, "8 seeds on one split and 90 test images")


def test_a_terminal_says_what_weakens_a_comparison(writer: "StudyWriter", capsys: pytest.CaptureFixture[str]) -> None:
    for strategy in ("freeze", "full"):
        for seed in range(1, 6):
            writer.run(strategy, seed, test=False)
    report = write_report(writer.root)
    print_report(report)
    shown = " ".join(capsys.readouterr().out.split())
    (table,) = report.summary()["tables"]
    assert "There is no test split" in shown
    assert all(caution in shown for caution in table["cautions"])


def test_many_arms_are_grouped_by_what_can_be_told_apart(make_writer: "Callable[..., StudyWriter]") -> None:
    from headstart.study.sections import analysis_sections

    writer = make_writer(images=120)
    names = ["freeze", "full", "lp_ft", "scratch", "lora", "bitfit", "l2sp", "delta", "bss"]
    report = write_report(writer.study(names, range(1, 6)))
    [(analysis, words)] = report.analyses
    results = analysis_sections(analysis, words, report.folder, "")[1].html
    best, behind = results.split("Behind the best")
    assert "Cannot be told from the best" in best
    for name in names:
        group = best if name in analysis.best[()] else behind
        assert f"</span>{name}</th>" in group
    assert "scratch" not in analysis.best[()]


def test_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err
