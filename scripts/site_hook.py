"""What the documentation site has besides ``docs/``, made when it is built; ``mkdocs.yml`` names this file.

The reference comes from ``site_reference.py``; studies are the files of ``experiments/`` where they lie, so that
nothing is committed twice; the notebooks become pages beside the files to download.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import site_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

# Pages link to files of the repository, so that they can be read there, too; here is what those are in the site.
_PLACES = (
    (r"experiments/(.+)", r"studies/\1"),
    (r"CONTRIBUTING\.md", "contributing.md"),
    (r"CHANGELOG\.md", "changelog.md"),
    (r"src/headstart/commands", "reference/commands.md"),
    (r"docs/notebooks/(\w+)\.ipynb", r"notebooks/\1.md"),
    (r"conf/train\.yaml", "reference/config/keys.md"),
    (r"conf/hydra/(\w+)(?:/(\w+)\.yaml)?", r"reference/config/hydra-\1.md#\2"),
    (r"conf/(\w+)(?:/(\w+)\.yaml)?", r"reference/config/\1.md#\2"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Hook of MkDocs: add what is generated, and what lies elsewhere in the repository."""
    texts = {**site_reference.pages(ROOT / "conf"), **repository_pages(ROOT), **notebook_pages(ROOT / "docs")}
    for place, text in texts.items():
        files.append(File.generated(config, place, content=text))
    for path in study_files(ROOT):
        place = "studies/" + path.relative_to(ROOT / "experiments").as_posix()
        files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Hook of MkDocs: links of ``docs/`` to files of the repository lead to the pages made of them."""
    place = page.file.src_uri
    return site_links(markdown, place) if (ROOT / "docs" / place).is_file() else markdown


def site_links(markdown: str, place: str) -> str:
    """A page of ``docs/`` with the links that the site needs.

    Args:
        markdown: its text.
        place: of it, relative to ``docs/``.
    """
    folder = posixpath.dirname(place)

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, match[1]))
        for pattern, replacement in _PLACES:
            if found := re.fullmatch(pattern, target):
                there, _, anchor = found.expand(replacement).partition("#")
                anchor = f"#{anchor}" if anchor else match[2] or ""
                return f"]({posixpath.relpath(there, folder or '.')}{anchor})"
        return match[0]

    return re.sub(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)", link, markdown)


def on_page_content(html: str, **_: object) -> str:
    """Hook of MkDocs: docstrings name functions and classes in the way of Sphinx, whose marks mean nothing here."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code>)", "", html)


def repository_pages(root: Path) -> dict[str, str]:
    """Texts of the repository that are pages of the site, too; links to what is no page become its name."""
    found = {}
    for name, place in (("CONTRIBUTING.md", "contributing.md"), ("CHANGELOG.md", "changelog.md")):
        text = (root / name).read_text(encoding="utf-8")
        found[place] = re.sub(r"\[([^\]]+)\]\((?:src|tests|conf|scripts)/[^)]*\)", r"\1", text)
    return found


def study_files(root: Path) -> Iterator[Path]:
    """Pages, tables, pictures and reports of the studies."""
    folder = root / "experiments"
    kinds = {".md", ".png", ".csv", ".json", ".html", ".yaml", ".py"}
    return (path for path in sorted(folder.rglob("*")) if path.suffix in kinds)


def notebook_pages(docs: Path) -> dict[str, str]:
    """The notebooks as Markdown; they are kept without outputs."""
    pages = {}
    for path in sorted(docs.rglob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        parts = [_cell(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
        title, *rest = parts
        download = f"[Download this notebook]({path.name}){{ download }}"
        pages[path.relative_to(docs).with_suffix(".md").as_posix()] = "\n\n".join([title, download, *rest]) + "\n"
    return pages


def _cell(kind: str, source: str) -> str:
    return source if kind == "markdown" else f"```python\n{source}\n```"
