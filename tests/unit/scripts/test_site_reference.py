"""The generated reference: every option and key, with what the sources say of it."""

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from site_reference import HYDRA_GROUPS, Key, header_markdown, pages, plain, read_keys  # noqa: E402

from headstart.commands.cli import COMMANDS  # noqa: E402
from headstart.config import compose  # noqa: E402
from headstart.config.compose import plain as plain_values  # noqa: E402
from headstart.system.catalog import GROUPS, options  # noqa: E402
from headstart.system.names import leaves  # noqa: E402


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages(ROOT / "conf")


def section(page: str, option: str) -> str:
    return page.partition(f"{{ #{option} }}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("group", [*GROUPS, *HYDRA_GROUPS])
def test_every_option_and_each_of_its_keys_is_there(group: str, made: dict[str, str]):
    page = made[f"reference/config/{group.replace('/', '-')}.md"]
    shared = page.partition("\n## Keys of")[2]
    names = [option.name for option in options(group, [ROOT / "conf"])]
    for name in names:
        assert len(names) == 1 or f"](#{name})" in page
        if group == "experiment":
            continue
        values = yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text())
        values.pop("defaults", None)
        for key in values:
            if key != "_target_" and not isinstance(values[key], dict):
                assert f"`{group.replace('/', '.')}.{key}`" in (section(page, name) + shared if names[1:] else page)


@pytest.mark.parametrize(("name", "given"), [("folder", "root"), ("csv", "manifest"), ("cifar10", "data_dir")])
def test_keys_that_an_option_takes_from_another_file_are_there(name: str, given: str, made: dict[str, str]):
    config = plain_values(compose([f"datamodule={name}", f"datamodule.{given}=here"]))["datamodule"]
    keys = [key for key in leaves(config) if key != "_target_"]
    assert len(keys) > 20
    assert [key for key in keys if f"`datamodule.{key}`" not in made["reference/config/datamodule.md"]] == []


def test_keys_without_a_group_are_there(made: dict[str, str]):
    keys = [key for key in leaves(plain_values(compose([]))) if key.partition(".")[0] not in {*GROUPS, "hydra"}]
    page = made["reference/config/keys.md"]
    named = [key for key in keys if not key.startswith("study.tuning.space.") and f"#### `{key}`" not in page]
    assert named == []
    assert "#### `study.tuning.space`" in page


def test_a_key_says_default_range_and_effect(made: dict[str, str]):
    page = made["reference/config/datamodule.md"]
    batch = page.partition("#### `datamodule.batch_size`")[2].partition("####")[0]
    assert "Default: `32`. May be a whole number of at least 1." in batch
    workers = page.partition("#### `datamodule.num_workers`")[2].partition("####")[0]
    assert "Changes no result" in workers
    assert "Changes no result" not in batch
    shear = page.partition("#### `datamodule.shear_range`")[2].partition("####")[0]
    assert "with `datamodule.augment=keras` only" in shear
    assert "It has to be given." in page.partition("#### `datamodule.manifest`")[2].partition("####")[0]
    assert "[`datamodule.min_crop`](#datamodule.min_crop) is `0.7` here." in section(page, "cifar10")


def test_each_command_shows_its_help(made: dict[str, str]):
    page = made["reference/commands.md"]
    assert [name for name in ("train", *COMMANDS) if f"## headstart {name}\n" not in page] == []
    assert "[--output FILE]" in page
    assert page.count("usage:") + page.count("Usage:") == len(COMMANDS) + 1


def test_comments_belong_to_the_key_that_they_stand_with():
    text = (
        "# The header\n#   python train.py a=1\na: 1  # behind\n      # and below\n\n# Before\n# it.\nb:\n  # Inside.\n"
        '  c: [1, 2]  # x\n\n  d: {e: 1}\nf: "#1"\n'
    )
    assert read_keys(text, "g") == [
        Key("g.a", "1", "behind and below"),
        Key("g.b.c", "[1, 2]", "Before it. Inside. x"),
        Key("g.b.d", "{e: 1}", ""),
        Key("g.f", '"#1"', ""),
    ]


def test_a_header_is_paragraphs_and_commands():
    text = (
        "# @package _global_\n# One\n# sentence.\n#\n#   python train.py a=1 \\\n#     b=2\n"
        "#   root/<class>/*   files\n# End.\na: 1\n"
    )
    assert header_markdown(text) == (
        "One sentence.\n\n```bash\npython train.py a=1 \\\n  b=2\n```\n\n```text\nroot/<class>/*   files\n```\n\nEnd."
    )


@pytest.mark.parametrize(
    ("comment", "markdown"),
    [
        ("with a=1, or b.c=[1,2]: x_y", "with `a=1`, or `b.c=[1,2]`: `x_y`"),
        ("trainer.max_epochs and `kept` <a> *b*", "`trainer.max_epochs` and `kept` \\<a\\> \\*b\\*"),
        ("null: a|b", "`null`: a\\|b"),
        ("backbone.weights=<run directory> finds", "`backbone.weights=<run directory>` finds"),
    ],
)
def test_words_of_comments_become_markdown(comment: str, markdown: str):
    assert plain(comment) == markdown


def test_a_notebook_becomes_a_page():
    pytest.importorskip("mkdocs")
    from site_hook import notebook_pages, on_page_content, repository_pages

    page = notebook_pages(ROOT / "docs")["notebooks/first_steps.md"]
    assert page.startswith("# First steps\n\n")
    assert "```python\nimport headstart\n" in page
    assert "(first_steps.ipynb){ download }" in page
    assert on_page_content("a :class:<code>B</code>: c") == "a <code>B</code>: c"
    assert "](src/" not in repository_pages(ROOT)["contributing.md"]


def test_links_of_the_documentation_lead_to_files_of_the_repository():
    broken = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


@pytest.mark.parametrize(
    ("place", "link", "there"),
    [
        ("howto/choose.md", "../../experiments/ranking/README.md", "../studies/ranking/README.md"),
        ("tutorial.md", "../experiments/sweeps/a.yaml", "studies/sweeps/a.yaml"),
        ("howto/extend.md", "../../CONTRIBUTING.md#adding-something", "../contributing.md#adding-something"),
        ("coming_from.md", "../conf/strategy/lp_ft.yaml", "reference/config/strategy.md#lp_ft"),
        ("index.md", "../conf/head", "reference/config/head.md"),
        ("howto/cluster.md", "../../conf/hydra/launcher/slurm.yaml", "../reference/config/hydra-launcher.md#slurm"),
        ("index.md", "../conf/train.yaml", "reference/config/keys.md"),
        ("index.md", "notebooks/first_steps.ipynb", "notebooks/first_steps.md"),
        ("howto/choose.md", "own_images.md#shape", "own_images.md#shape"),
        ("index.md", "https://pytorch.org/x", "https://pytorch.org/x"),
    ],
)
def test_in_the_site_they_lead_to_the_pages_made_of_those(place: str, link: str, there: str):
    pytest.importorskip("mkdocs")
    from site_hook import site_links

    assert site_links(f"See [it]({link}), please.", place) == f"See [it]({there}), please."
