"""The report opened in a real browser: no complaint, no request, no horizontal scroll, a text for every plot."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from browser_testing import Browser, find_browser
from PIL import Image

from headstart.study.report import write_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StudyWriter


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium is installed, so the page cannot be opened")
    with Browser(executable, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(make_writer: "Callable[..., StudyWriter]") -> Path:
    writer = make_writer()
    writer.study(["freeze", "full", "scratch"], range(1, 4), shots=[5, 20])
    writer.run(
        "full", 9, data="a-data-set-with-a-name-that-is-far-too-long-for-the-screen-of-any-phone-and-has-no-spaces"
    )
    give_pictures(writer.root)
    writer.failed("evil", "<script>alert(1)</script>" + "x" * 300)
    return write_report(writer.root).page


def give_pictures(study: Path) -> None:
    """A file for every image that the runs speak of, wide or tall, large or tiny."""
    images, noise = study.parent / "images", np.random.default_rng(0)
    for place, run in enumerate(sorted(study.iterdir())):
        (run / "config.yaml").write_text(yaml.safe_dump({"datamodule": {"root": str(images)}}))
        if place == 0:
            with np.load(run / "predictions_test.npz") as stored:
                for number, name in enumerate(stored["ids"]):
                    shape = [(8, 8, 3), (300, 900, 3), (900, 300, 3)][number % 3]
                    (images / str(name)).parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8)).save(images / str(name))


def test_pictures_are_drawn_and_move_nothing(browser: Browser, page: Path) -> None:
    browser.open(page, width=400)
    sizes = browser.evaluate(
        """[...document.querySelectorAll('img')].map(image => {
            const box = image.getBoundingClientRect();
            return [image.naturalWidth, image.naturalHeight, box.width, box.height];
        })"""
    )
    assert len(sizes) >= 3
    for natural_width, natural_height, width, height in sizes:
        assert natural_width > 0
        assert width / height == pytest.approx(natural_width / natural_height, rel=0.05)
        assert 16 <= max(width, height) <= 96


@pytest.mark.parametrize("width", [320, 400, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_and_nothing_complains(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)") is None
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]


def test_every_plot_has_a_text_alternative(browser: Browser, page: Path) -> None:
    browser.open(page, width=1200)
    plots = browser.evaluate(
        """[...document.querySelectorAll('svg')].map(svg => ({
            role: svg.getAttribute('role'),
            text: (svg.getAttribute('aria-labelledby') || '').split(' ')
                .map(id => document.getElementById(id)?.textContent || '').join(' | '),
            table: !!svg.closest('figure').querySelector('details table'),
        }))"""
    )
    assert len(plots) > 8
    for plot in plots:
        assert plot["role"] == "img"
        assert len(plot["text"]) > 40, plot
        assert plot["table"]


def test_ids_are_unique_and_references_resolve(browser: Browser, page: Path) -> None:
    browser.open(page, width=1200)
    ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    missing = browser.evaluate(
        """[...document.querySelectorAll('[href^="#"], [clip-path]')]
            .map(e => e.getAttribute('href') || e.getAttribute('clip-path').slice(4, -1))
            .filter(ref => !document.getElementById(ref.slice(1)))"""
    )
    assert missing == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_of_page_and_plots_can_be_read_on_the_background(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, width=1200, dark=dark)
    worst = browser.evaluate(
        """(() => {
            const parse = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
            const light = rgb => rgb.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const paper = light(parse(getComputedStyle(document.body).backgroundColor));
            const contrast = rgb => (Math.max(light(rgb), paper) + 0.05) / (Math.min(light(rgb), paper) + 0.05);
            const colours = [...document.querySelectorAll('svg text')].map(e => getComputedStyle(e).fill)
                .concat([...document.querySelectorAll('p, li, th, td, a, dd, h2, figcaption')]
                    .map(e => getComputedStyle(e).color));
            return Math.min(...colours.map(text => contrast(parse(text))));
        })()"""
    )
    assert worst >= 4.5


def test_text_in_plots_is_large_enough_on_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page, width=400)
    smallest = browser.evaluate(
        """Math.min(...[...document.querySelectorAll('figure svg')].map(svg => {
            const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
            const sizes = [...svg.querySelectorAll('text')].map(text => parseFloat(getComputedStyle(text).fontSize));
            return scale * Math.min(...sizes);
        }))"""
    )
    assert smallest >= 9


def test_page_prints(browser: Browser, page: Path) -> None:
    browser.open(page, width=1200, dark=True)
    assert browser.pdf().startswith(b"%PDF")
