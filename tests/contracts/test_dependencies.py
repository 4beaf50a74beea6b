"""What pyproject.toml allows is what the tests run with, at both ends."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import headstart

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_EXTRAS = PROJECT["optional-dependencies"]
#: Of the product; the tools of ``dev`` and ``docs`` are pinned by constraints.txt alone.
REQUIREMENTS = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *(_EXTRAS[name] for name in _EXTRAS if name not in {"dev", "docs", "all"}))
    for line in lines
]
#: Not in the environment of the tests.
ELSEWHERE = {"mlflow", "submitit", "ray", "wandb-workspaces", "pyarrow", "captum", "datasets", "gradio"}


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    return {
        package: Version(version)
        for package, _, version in (line.partition("==") for line in lines if line and not line.startswith("#"))
    }


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_a_dependency_is_bounded_on_both_sides_and_both_are_tested(requirement: Requirement) -> None:
    bounds = {part.operator: Version(part.version) for part in requirement.specifier}
    if set(bounds) == {"=="}:
        return
    assert set(bounds) == {">=", "<"}
    if requirement.name not in ELSEWHERE:
        assert pins("constraints.txt")[requirement.name] in requirement.specifier
        assert pins("constraints-oldest.txt")[requirement.name] == bounds[">="]


def test_the_version_has_one_source(capsys: pytest.CaptureFixture[str]) -> None:
    from headstart.commands.cli import main

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"headstart {importlib.metadata.version('headstart')}\n"
    assert f"version: {headstart.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {headstart.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
