"""The report's page: one HTML file that opens from disk, with nothing to load and no script. Everything is escaped."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape as escape_markup
from importlib import resources
from typing import Any

from headstart.plots.style import Plot
from headstart.study.thumbnails import Thumbnail
from headstart.system.names import legible

# Nothing may be fetched or run, whatever a class name or an error message contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

MOST_DATA_ROWS = 120
"""Data of a plot with more rows than this is shown from its start; the CSV file beside the page has all of it."""


def escape(text: str) -> str:
    """A text as HTML shows it, whatever bytes a name is made of."""
    return escape_markup(legible(text))


@dataclass(frozen=True)
class Section:
    """One part of the page: an anchor, a heading, HTML, and whether the links at the top lead to it."""

    anchor: str
    title: str
    html: str
    listed: bool = True


@dataclass(frozen=True)
class Cell:
    """What stands in a table: text, a smaller second line, a class, whether it is a number, a picture before it."""

    text: str
    small: str = ""
    kind: str = ""
    number: bool = False
    swatch: int | None = None
    picture: Thumbnail | None = None


def document(title: str, kicker: str, lede: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page. ``lede`` and ``footer`` are text; sections bring their own HTML."""
    links = "".join(
        f'<li><a href="#{part.anchor}">{escape(part.title)}</a></li>' for part in sections[1:] if part.listed
    )
    body = "".join(
        f'<section id="{part.anchor}" aria-labelledby="{part.anchor}-title">'
        f'<h2 id="{part.anchor}-title">{escape(part.title)}</h2>{part.html}</section>'
        if place
        else f'<section id="{part.anchor}" aria-label="{escape(part.title)}">{part.html}</section>'
        for place, part in enumerate(sections)
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_stylesheet()}</style>\n</head>\n<body>\n"
        f'<header><p class="kicker">{escape(kicker)}</p><h1>{escape(title)}</h1><p class="lede">{escape(lede)}</p>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main>{body}</main>\n'
        f"<footer>{escape(footer)}</footer>\n</body>\n</html>\n"
    )


def verdict_box(headline: str, points: Sequence[tuple[str, str]]) -> str:
    """The answer, and what one should know of it: a label and a sentence each."""
    items = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in points)
    return f'<div class="verdict"><p class="answer">{escape(headline)}</p>{f"<dl>{items}</dl>" if items else ""}</div>'


def glossary(words: Mapping[str, str]) -> str:
    """Terms and what they mean."""
    items = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in words.items())
    return f'<dl class="glossary">{items}</dl>' if items else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def bullets(items: Iterable[str]) -> str:
    """A list of texts."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def figures(plots: Iterable[Plot | None]) -> str:
    """Plots side by side where there is room; nothing for those that are None."""
    parts = "".join(_figure(plot) for plot in plots if plot is not None)
    return f'<div class="figures">{parts}</div>' if parts else ""


def gallery(pictures: Iterable[tuple[Thumbnail | None, str]]) -> str:
    """Pictures with a line under each; nothing for those that are None."""
    parts = "".join(
        f"<figure>{_picture(picture)}<figcaption>{escape(text)}</figcaption></figure>"
        for picture, text in pictures
        if picture is not None
    )
    return f'<div class="gallery">{parts}</div>' if parts else ""


def drawing(png: bytes, title: str) -> str:
    """A picture that was drawn as a file, inside the page, under a heading."""
    uri = f"data:image/png;base64,{b64encode(png).decode('ascii')}"
    return f'<figure>{heading(title)}<img class="drawing" src="{uri}" alt="{escape(title)}"></figure>'


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> str:
    """A table that turns into one card per row on a narrow screen. The first column names the row."""
    head = "".join(
        f'<th scope="col"{_number(bool(rows) and rows[0][place].number)}>{escape(name)}</th>'
        for place, name in enumerate(columns)
    )
    body = "".join(
        f'<tr><th scope="row">{_content(row[0])}</th>'
        + "".join(
            f'<td data-label="{escape(name)}"{_number(cell.number)}><span>{_content(cell)}</span></td>'
            for name, cell in zip(columns[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<table class="cards">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def data_table(rows: Sequence[Mapping[str, Any]], summary: str) -> str:
    """Plain data behind a line that opens it; it scrolls inside its own box."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_value(row.get(name)))}</td>" for name in columns) + "</tr>"
        for row in rows[:MOST_DATA_ROWS]
    )
    more = paragraph(f"… and {len(rows) - MOST_DATA_ROWS} more rows in the CSV file.", "note")
    return (
        f"<details><summary>{escape(summary)}</summary>"
        f'<div class="scroll" role="region" aria-label="{escape(summary)}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"{more if len(rows) > MOST_DATA_ROWS else ''}</details>"
    )


def _figure(plot: Plot) -> str:
    ids = f"plot-{plot.name}-title plot-{plot.name}-desc"
    label = (
        f'<title id="plot-{plot.name}-title">{escape(plot.title)}</title>'
        f'<desc id="plot-{plot.name}-desc">{escape(plot.alt)}</desc>'
    )
    opening = plot.svg.index(">") + 1
    drawing = (
        plot.svg[:opening].replace("<svg", f'<svg role="img" aria-labelledby="{ids}"', 1) + label + plot.svg[opening:]
    )
    return (
        f"<figure>{heading(plot.title)}{drawing}<figcaption>{escape(plot.caption)}</figcaption>"
        f"{data_table(plot.rows, 'The numbers')}</figure>"
    )


def _content(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.swatch is not None:
        text = f'<span class="swatch" style="background: var(--s{cell.swatch})"></span>{text}'
    if cell.picture is not None:
        text = _picture(cell.picture) + text
    if cell.kind:
        text = f'<span class="{cell.kind}">{text}</span>'
    return f'{text}<span class="interval">{escape(cell.small)}</span>' if cell.small else text


def _picture(picture: Thumbnail) -> str:
    # The name that follows it says what it is, so a text for it would be heard twice.
    kind = "thumb coarse" if picture.coarse else "thumb"
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img class="{kind}" src="{escape(picture.uri)}" alt="" {size}>'


def _number(yes: bool) -> str:
    return ' class="num"' if yes else ""


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    return str(value)


@cache
def _stylesheet() -> str:
    return resources.files("headstart.study").joinpath("page.css").read_text(encoding="utf-8")
