"""The archives that are published, installed where there is no checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

#: Run by the fresh environment's Python.
CONTENTS = """
import sys
from importlib.metadata import version
from importlib.resources import files

import headstart
from headstart.system.catalog import conf_dir
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

package = files("headstart")
print(sys.prefix in headstart.__file__, version("headstart") == headstart.__version__)
print(str(package) in str(conf_dir()), package.joinpath("py.typed").is_file())
print(*(any(f.name.endswith(end) for f in package.joinpath("weights", folder).iterdir())
        for folder, end in (("bundled", ".safetensors"), ("package_cards", ".json"))))
print("ProcessLauncher" in {found.__name__ for found in Plugins.instance().discover(Launcher)}, end=" ")
print("strategy" in headstart.compose("experiment=smoke"))
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_of_the_sdist_works_without_the_checkout(repository: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=repository)
    [archive] = tmp_path.glob("headstart-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    assert (source / "constraints-oldest.txt").is_file()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=source)
    [wheel] = tmp_path.glob("*.whl")

    fresh, elsewhere = tmp_path / "fresh", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=tmp_path)
    python = fresh / "bin" / "python"
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    run(sys.executable, *install, cwd=tmp_path)
    # The dependencies are those of this environment; a path adds them without what is installed there in place.
    [packages] = fresh.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    assert run(python, "-c", CONTENTS, cwd=elsewhere).split() == ["True"] * 8
    assert "train" in run(fresh / "bin" / "headstart", "--help", cwd=elsewhere)
    run(fresh / "bin" / "headstart", "train", "experiment=smoke", "callbacks.plots=false", cwd=elsewhere)
    [result] = elsewhere.glob("outputs/smoke/*/result.json")
    assert json.loads(result.read_text())["status"] == "done"
